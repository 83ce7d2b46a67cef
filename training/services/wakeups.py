"""The event through which a broker's message reaches this process's worker loops."""

from __future__ import annotations

import threading

wakeups = threading.Event()
