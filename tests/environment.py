"""Loaded by pytest before Django reads its settings: a throw-away data folder and database.

TEST_DATABASE_URL runs the same suite on another database (`make test` does so with PostgreSQL).
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_data_dir = tempfile.mkdtemp(prefix="platform-tests-")
atexit.register(shutil.rmtree, _data_dir, ignore_errors=True)

os.environ["DATA_DIR"] = _data_dir
os.environ["BROKER_URL"] = "none"
os.environ["LOG_LEVEL"] = "WARNING"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if url := os.environ.get("TEST_DATABASE_URL"):
    os.environ["DATABASE_URL"] = url
else:
    os.environ.pop("DATABASE_URL", None)
