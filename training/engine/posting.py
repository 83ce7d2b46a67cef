"""JSON posted to an address and what comes back, with tries, a time limit and an ear for signals.

Holds no torch. Redirects are not followed and this machine is asked past any proxy: what is sent,
and the key that goes with it, reaches the address that was given or none.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import math
import queue
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from training.engine.errors import ConfigError, EngineError
from training.engine.stopping import raise_if_stopped, stop_requested

#: Statuses that say "not now" rather than "not so".
MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
#: Seconds between two looks at the stop flag while a reply is awaited.
LOOK_S = 0.1
#: The first pause before another try; each further one is twice as long, up to the last.
PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
#: Bytes of a refusal that are read, and characters of its reason that are repeated.
REFUSAL_BYTES, LONGEST_WHY = 4096, 200


def check_url(name: str, url: str) -> None:
    """Raise ConfigError naming the field unless prompts and answers may be sent to this address.

    Off this machine they travel encrypted. A name and password in the address are refused: the
    config is kept and shown.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    encrypted = parts.scheme == "https" and bool(host)
    here = parts.scheme == "http" and is_loopback(host)
    if not (encrypted or here) or parts.username is not None or parts.fragment:
        raise ConfigError(
            f"{name} is {url!r}; allowed: https://…, or http:// to this machine "
            "(localhost, 127.0.0.1, [::1]), without a name and password in it"
        )


def is_loopback(host: str) -> bool:
    """Whether a host can only be this machine; a name other than localhost may be anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect as the error that it is: answers go to the address that was given."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class PinnedHTTP(http.client.HTTPConnection):
    """Connects to addresses that were checked before: the name is not looked up again.

    Whoever answers for a name may change the answer between a check and the connection.
    """

    addresses: tuple[str, ...] = ()

    def connect(self) -> None:
        self.sock = connected(self.addresses, self.port, self.timeout)


class PinnedHTTPS(http.client.HTTPSConnection):
    """The same, encrypted, with the certificate of the name that was asked for."""

    addresses: tuple[str, ...] = ()

    def __init__(self, *arguments: Any, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(*arguments, context=context, **options)
        self._pinned_context = context

    def connect(self) -> None:
        plain = connected(self.addresses, self.port, self.timeout)
        self.sock = self._pinned_context.wrap_socket(plain, server_hostname=self.host)


def connected(addresses: Sequence[str], port: int, timeout: Any) -> socket.socket:
    """A connection to the first address that takes one. Raises OSError with the last one's why."""
    for address in addresses[:-1]:
        with contextlib.suppress(OSError):
            return socket.create_connection((address, port), timeout)
    return socket.create_connection((addresses[-1], port), timeout)


class Pinned(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens both kinds of address over pinned connections."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        super().__init__()
        self._kinds = {"addresses": addresses}

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        kind: Any = type("Pinned", (PinnedHTTP,), self._kinds)
        return self.do_open(kind, request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        kind: Any = type("Pinned", (PinnedHTTPS,), self._kinds)
        return self.do_open(kind, request, context=ssl.create_default_context())


class MayPass(Exception):
    """Raised inside `Post` for a failure that is worth another try."""

    def __init__(self, text: str, pause_s: float = 0.0) -> None:
        """pause_s: how long the server asks to be left alone."""
        super().__init__(text)
        self.pause_s = pause_s


@dataclass(frozen=True, kw_only=True)
class Post:
    """Asks one address. A signal is obeyed while it waits."""

    url: str
    timeout_s: float
    retries: int
    max_reply_bytes: int
    failed: Callable[[str], EngineError]
    """Makes the error of a failure that no further try mends, from what happened."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    addresses: tuple[str, ...] = ()
    """IP addresses that the host was found at and that may be connected to; empty: any."""
    before_try: Callable[[], None] = raise_if_stopped
    """Called before every try; may wait (a rate limit)."""

    def ask(self, body: bytes) -> bytes:
        """The reply to one request, tried again where that may help.

        Raises what `failed` makes, Interrupted after a signal.
        """
        pause_s = PAUSE_S
        for left in range(self.retries, -1, -1):
            self.before_try()
            try:
                return self._within_timeout(body)
            except MayPass as error:
                if not left:
                    raise self.failed(f"{error} ({self.retries + 1} tries)") from error
                asked_s = error.pause_s
            stop_requested.wait(min(max(pause_s, asked_s), LONGEST_PAUSE_S))
            pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)
        raise AssertionError("unreachable: the last try returns or raises")

    def _within_timeout(self, body: bytes) -> bytes:
        """One try on a thread of its own: a socket's timeout does not bound a reply that trickles.

        Raises MayPass, what `failed` makes, Interrupted.
        """
        ends: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

        def post() -> None:
            try:
                ends.put(self._post(body))
            except Exception as error:  # raised again by whoever waits
                ends.put(error)

        threading.Thread(target=post, name="post", daemon=True).start()
        until = time.monotonic() + self.timeout_s
        while (left_s := until - time.monotonic()) > 0.0:
            raise_if_stopped()
            try:
                end = ends.get(timeout=min(LOOK_S, left_s))
            except queue.Empty:
                continue
            if isinstance(end, Exception):
                raise end
            return end
        raise MayPass(f"no whole reply within {self.timeout_s:g} s")

    def _post(self, body: bytes) -> bytes:
        handlers: list[urllib.request.BaseHandler] = [NoRedirects()]
        if self.addresses:
            handlers.append(Pinned(self.addresses))
        if self.addresses or is_loopback(urlsplit(self.url).hostname or ""):
            handlers.append(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(  # noqa: S310 - check_url knows the scheme
            self.url,
            data=body,
            headers={"Content-Type": "application/json", **self.headers},
            method="POST",
        )
        try:
            opener = urllib.request.build_opener(*handlers)
            # whoever waits gives up first; this ends the thread
            with opener.open(request, timeout=2.0 * self.timeout_s) as reply:
                status, data = int(reply.status), bytes(reply.read(self.max_reply_bytes + 1))
                wanted = reply.headers.get("Content-Length", "")
        except urllib.error.HTTPError as error:
            answered = f"it answered with status {error.code}{self._why(error)}"
            if error.code in MAY_PASS:
                pause_s = seconds_of(error.headers.get("Retry-After"))
                raise MayPass(answered, pause_s) from error
            moved = ", a redirect, which is not followed" if 300 <= error.code < 400 else ""
            raise self.failed(f"{answered}{moved}") from error
        except (OSError, http.client.HTTPException) as error:
            raise MayPass(str(getattr(error, "reason", None) or error)) from error
        if status != 200:
            raise self.failed(f"it answered with status {status} instead of 200")
        if len(data) > self.max_reply_bytes:
            raise self.failed(f"its reply exceeds {self.max_reply_bytes} bytes")
        # reading with a bound does not notice a connection that closed early
        if wanted.isdigit() and len(data) < int(wanted):
            raise MayPass(f"its reply broke off after {len(data)} of {wanted} bytes")
        return data

    def _why(self, error: urllib.error.HTTPError) -> str:
        """The reason that a refusal gives, to stand behind its status; empty without one.

        One that repeats a secret of ours is not repeated.
        """
        data = b""
        with error, contextlib.suppress(OSError, http.client.HTTPException):
            data = error.read(REFUSAL_BYTES)
        why = reason_in(data)
        if not why or any(value.rpartition(" ")[2] in why for value in self.headers.values()):
            return ""
        return f" ({why[:LONGEST_WHY]})"


def reason_in(data: bytes) -> str:
    """The reason in a refusal's JSON, in one line: OpenAI's error.message, FastAPI's detail."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    for name in ("error", "detail", "message"):
        found = found.get(name, found) if isinstance(found, dict) else found
    if not isinstance(found, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in found).split())


def seconds_of(header: str | None) -> float:
    """Retry-After in seconds; 0 for a date or nonsense, since pauses grow anyway."""
    try:
        seconds = float(header or 0.0)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0.0 else 0.0
