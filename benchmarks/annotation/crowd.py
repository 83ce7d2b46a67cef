"""Annotators who ask and answer over HTTP as fast as they get the next comparison.

The loop is next → submit → submit …: a submit's reply holds the next comparison. Now and then
`next` is asked apart, as a reloaded page does, and a submit is sent again under its key, as after
a reply that was lost.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

#: After every so many judgments `next` is asked apart, and the submit is sent once more.
NEXT_EVERY = 5
AGAIN_EVERY = 50
ANSWERS = ("left", "right", "tie", "left", "right")


@dataclass
class Tally:
    """What the annotators saw; times in seconds."""

    next_s: list[float] = field(default_factory=list)
    submit_s: list[float] = field(default_factory=list)
    #: Keys whose judgment was confirmed.
    keys: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: Tally) -> None:
        """Take in what another has seen; the seconds stay."""
        self.next_s += other.next_s
        self.submit_s += other.submit_s
        self.keys += other.keys
        self.errors += other.errors


def percentile(seconds: list[float], percent: int) -> float:
    """In milliseconds."""
    if len(seconds) < 2:
        return 1000 * sum(seconds)
    return 1000 * quantiles(seconds, n=100, method="inclusive")[percent - 1]


class Caller:
    """One annotator's connection, kept open."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any, float]:
        """(status, the reply's JSON or None, seconds)."""
        started = time.perf_counter()
        self._connection.request("POST", f"/api/v1{path}", json.dumps(body), self._headers)
        reply = self._connection.getresponse()
        text = reply.read()
        return reply.status, json.loads(text) if text else None, time.perf_counter() - started


def judge(
    port: int, tokens: list[str], slug: str, *, judgments: int | None = None, name: str = ""
) -> Tally:
    """All at once, until nothing is left for anybody, or so many judgments are made.

    `name` keeps the keys of two runs in one project apart.
    """
    tally, lock = Tally(), threading.Lock()
    barrier = threading.Barrier(len(tokens) + 1)

    def enough() -> bool:
        return judgments is not None and len(tally.keys) >= judgments

    def one(index: int) -> None:
        caller, mine = Caller(port, tokens[index]), Tally()
        barrier.wait()
        try:
            work(caller, mine, index)
        except Exception as error:
            mine.errors.append(repr(error))
        with lock:
            tally.add(mine)

    def work(caller: Caller, mine: Tally, index: int) -> None:
        status, served, took = caller.post(f"/projects/{slug}/next", {})
        mine.next_s.append(took)
        number = 0
        while status == 200 and served and not enough():
            number += 1
            key = f"{slug}{name}-{index}-{number}"
            body = {
                "answer": ANSWERS[number % len(ANSWERS)],
                "idempotency_key": key,
                "active_ms": 1000,
            }
            path = f"/assignments/{served['id']}/judgment"
            status, reply, took = caller.post(path, body)
            if status != 201:
                mine.errors.append(f"submit: {status} {reply}")
                return
            mine.submit_s.append(took)
            with lock:
                tally.keys.append(key)
            if number % AGAIN_EVERY == 0 and (again := caller.post(path, body)[0]) != 200:
                mine.errors.append(f"sent again: {again}")
            served, status = reply["next"], 200
            if number % NEXT_EVERY == 0 or served is None:
                status, served, took = caller.post(f"/projects/{slug}/next", {})
                mine.next_s.append(took)
        if status not in (200, 204):
            mine.errors.append(f"next: {status} {served}")

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(tokens))]
    for thread in threads:
        thread.start()
    barrier.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    tally.seconds = time.perf_counter() - started
    return tally
