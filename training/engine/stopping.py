"""The one flag that asks a run to stop: set by signals, read by loops between steps."""

from __future__ import annotations

import threading

stop_requested = threading.Event()
