"""Who can read the key, and whether sessions travel openly."""

from __future__ import annotations

import ipaddress
import stat
from pathlib import Path

from django.conf import settings

from rlhf_platform.doctor.findings import Finding, shortly


def check_secrets() -> list[Finding]:
    """Who can read the key, and whether sessions travel openly."""
    return [key_finding(Path(settings.DATA_DIR) / "secret_key"), https_finding()]


def key_finding(path: Path) -> Finding:
    try:
        key = path.read_text(encoding="utf-8").strip()
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return Finding("secret key", "ok", "SECRET_KEY comes from the environment")
    except (OSError, UnicodeDecodeError) as error:
        mend = "make it a text file that this user can read, or set SECRET_KEY"
        return Finding("secret key", "bad", f"{path} cannot be read ({error})", mend)
    if mode & 0o077:
        said = f"others on this machine can read {path} (mode {mode:04o})"
        return Finding("secret key", "bad", said, f"chmod 600 {path}")
    if key != settings.SECRET_KEY:
        return Finding("secret key", "ok", "SECRET_KEY comes from the environment")
    return Finding("secret key", "ok", f"kept in {path}, for its owner alone")


def https_finding() -> Finding:
    public = [host for host in settings.ALLOWED_HOSTS if not is_loopback(host)]
    if settings.DEBUG and public:
        said = f"DEBUG is on for {shortly(public)}: error pages show settings and code"
        return Finding("https", "bad", said, "set DEBUG=0")
    if public and not settings.HTTPS:
        said = f"the site answers to {shortly(public)} without HTTPS=1: sessions can be listened to"
        return Finding("https", "warning", said, "put TLS in front of it and set HTTPS=1")
    return Finding("https", "ok", "on" if settings.HTTPS else "off; only this machine is served")


def is_loopback(host: str) -> bool:
    if host.strip(".").lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
