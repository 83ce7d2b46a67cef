"""Scores from an HTTP endpoint (`ppo.reward_url`), and which addresses it may have. Holds no torch.

POST with {"answers": [{"prompt": [{"role", "content"}], "response": "…", "finished": true}, …]};
the reply is 200 with {"scores": [number, …]}, one for each answer in their order. See
docs/methods/ppo.md.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import math
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from training.engine.errors import ConfigError, RewardSourceError
from training.engine.stopping import raise_if_stopped, stop_requested

#: Answers in one request.
BATCH = 32
#: No honest reply to so few answers is longer.
MAX_REPLY_BYTES = 1_000_000
#: Statuses that say "not now" rather than "not so".
MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
#: Seconds between two looks at the stop flag while a reply is awaited.
LOOK_S = 0.1
#: The first pause before another try; each further one is twice as long, up to the last.
PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


def check_reward_url(url: str) -> None:
    """Raise ConfigError unless prompts and answers may be sent to this address.

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
            f"ppo.reward_url is {url!r}; allowed: https://…, or http:// to this machine "
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


class MayPass(Exception):
    """Raised inside `Endpoint` for a failure that is worth another try."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Asks one address for scores. A signal is obeyed while it waits."""

    url: str
    timeout_s: float
    retries: int

    def scores(self, answers: Sequence[dict[str, Any]]) -> list[float]:
        """One finite number for each answer, in one request.

        Raises RewardSourceError naming the endpoint, Interrupted after a signal.
        """
        body = json.dumps({"answers": list(answers)}, ensure_ascii=False).encode()
        return self._read(self._ask(body), len(answers))

    def _ask(self, body: bytes) -> bytes:
        """The reply to one request, tried again where that may help."""
        pause_s = PAUSE_S
        for left in range(self.retries, -1, -1):
            try:
                return self._within_timeout(body)
            except MayPass as error:
                if not left:
                    raise self._failed(f"{error} ({self.retries + 1} tries)") from error
            stop_requested.wait(pause_s)
            pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)
        raise AssertionError("unreachable: the last try returns or raises")

    def _within_timeout(self, body: bytes) -> bytes:
        """One try on a thread of its own: a socket's timeout does not bound a reply that trickles.

        Raises MayPass, RewardSourceError, Interrupted.
        """
        ends: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

        def post() -> None:
            try:
                ends.put(self._post(body))
            except Exception as error:  # raised again by whoever waits
                ends.put(error)

        threading.Thread(target=post, name="reward-url", daemon=True).start()
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
        if is_loopback(urlsplit(self.url).hostname or ""):
            handlers.append(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(  # noqa: S310 - check_reward_url knows the scheme
            self.url, data=body, headers={"Content-Type": "application/json"}, method="POST"
        )
        try:
            opener = urllib.request.build_opener(*handlers)
            # whoever waits gives up first; this ends the thread
            with opener.open(request, timeout=2.0 * self.timeout_s) as reply:
                status, data = int(reply.status), bytes(reply.read(MAX_REPLY_BYTES + 1))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in MAY_PASS:
                raise MayPass(f"it answered with status {error.code}") from error
            moved = ", a redirect, which is not followed" if 300 <= error.code < 400 else ""
            raise self._failed(f"it answered with status {error.code}{moved}") from error
        except (OSError, http.client.HTTPException) as error:
            raise MayPass(str(getattr(error, "reason", None) or error)) from error
        if status != 200:
            raise self._failed(f"it answered with status {status} instead of 200")
        return data

    def _read(self, data: bytes, wanted: int) -> list[float]:
        """The scores of a reply: as many as were asked for, all of them numbers."""
        if len(data) > MAX_REPLY_BYTES:
            raise self._failed(f"its reply exceeds {MAX_REPLY_BYTES} bytes")
        try:
            reply = json.loads(data)
            scores = reply["scores"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._failed('its reply is not JSON of the form {"scores": […]}') from None
        if not isinstance(scores, list) or len(scores) != wanted:
            n = len(scores) if isinstance(scores, list) else "no list of"
            raise self._failed(f"it gave {n} scores for {wanted} answers")
        for number, score in enumerate(scores, start=1):
            is_number = isinstance(score, int | float) and not isinstance(score, bool)
            if not is_number or not abs(score) < 1e300 or not math.isfinite(score):
                raise self._failed(f"score {number} of {wanted} is {score!r}, no finite number")
        return [float(score) for score in scores]

    def _failed(self, what: str) -> RewardSourceError:
        return RewardSourceError(
            f"ppo.reward_url {self.url} does not score: {what}. Mend it, then start the run again: "
            "it goes on from its newest checkpoint"
        )
