"""Typed readers of the process environment, used by settings alone.

Every name may also be given as NAME_FILE, the path of a file that holds the value
(secrets mounted as files). A value that does not parse stops the start with a sentence.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured


def text(name: str, default: str = "") -> str:
    """The value of NAME, or the contents of the file named by NAME_FILE."""
    file_name = os.environ.get(f"{name}_FILE")
    if file_name:
        try:
            return Path(file_name).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ImproperlyConfigured(
                f"{name}_FILE={file_name} cannot be read: {error}"
            ) from error
    return os.environ.get(name, default)


def flag(name: str, default: bool = False) -> bool:
    value = text(name).strip().lower()
    if not value:
        return default
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"0", "false", "no", "off"}:
        return False
    raise ImproperlyConfigured(f"{name}={value!r} is neither true nor false (use 1 or 0)")


def number(name: str, default: int, *, minimum: int = 0) -> int:
    value = text(name).strip()
    if not value:
        return default
    try:
        parsed = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={value!r} is not a whole number") from None
    if parsed < minimum:
        raise ImproperlyConfigured(f"{name}={parsed} is below {minimum}")
    return parsed


def words(name: str, default: str = "") -> list[str]:
    """A comma-separated list."""
    return [word.strip() for word in text(name, default).split(",") if word.strip()]


def secret_key(folder: Path) -> str:
    """SECRET_KEY, or a key made on first start and kept in `folder` (mode 0600)."""
    given = text("SECRET_KEY")
    if given:
        if len(given) < 32:
            raise ImproperlyConfigured("SECRET_KEY is shorter than 32 characters")
        return given
    path = folder / "secret_key"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.exists():
            return kept_key(path)
        raise ImproperlyConfigured(f"DATA_DIR={folder} is no folder; name one") from None
    except OSError as error:
        raise ImproperlyConfigured(
            f"DATA_DIR={folder} cannot be written ({error.strerror}); name a folder that can"
        ) from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        key = secrets.token_urlsafe(48)
        handle.write(key)
    return key


def kept_key(path: Path) -> str:
    """The key that an earlier start made. Raises ImproperlyConfigured for what is none."""
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ImproperlyConfigured(
            f"{path} cannot be read ({error}); restore it, or set SECRET_KEY"
        ) from error
    if len(key) < 32:
        raise ImproperlyConfigured(
            f"{path} holds no whole key; delete it, and everybody signs in again with a new one"
        )
    return key


def database(url: str) -> dict[str, Any]:
    """A DATABASES entry from `sqlite:///path` or `postgres://user:password@host:port/name?option=…`."""
    try:
        parts = urlsplit(url)
        port = str(parts.port or "")
    except ValueError as error:
        raise ImproperlyConfigured(f"DATABASE_URL is no address ({error})") from error
    if parts.scheme == "sqlite":
        path = Path(parts.path[1:] if parts.path.startswith("/") else parts.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImproperlyConfigured(
                f"DATABASE_URL names {path}, whose folder cannot be made ({error.strerror})"
            ) from error
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(path),
            # A file for tests too: threads would share one in memory and wait differently.
            "TEST": {"NAME": f"{path}.test"},
            # Without these three SQLite answers "database is locked" under two writers.
            "OPTIONS": {
                "timeout": 20,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    if parts.scheme in {"postgres", "postgresql"}:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path.lstrip("/")),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": parts.hostname or "",
            "PORT": port,
            "CONN_MAX_AGE": 60,
            "CONN_HEALTH_CHECKS": True,
            # Without bounds a server that went silent would hold a worker for minutes.
            "OPTIONS": {
                "connect_timeout": "5",
                "tcp_user_timeout": "15000",
                # Its planner takes a search of a long queue for a large query, and compiling that
                # takes a second where running it takes one millisecond.
                "options": "-c jit=off",
                **dict(parse_qsl(parts.query)),
            },
        }
    raise ImproperlyConfigured(
        f"DATABASE_URL has the scheme {parts.scheme!r}; use sqlite:///PATH or postgres://…"
    )
