"""Who gets what at every address, read off the URLconf: a new endpoint without a row fails."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from rlhf_platform.accounts.models import ApiToken
from rlhf_platform.accounts.secrets import make_api_token, revoke_api_token
from rlhf_platform.api import operations
from tests.api.world import BASE, Caller, World
from training.models import Job

METHODS = ("get", "post", "put", "patch", "delete")


def served() -> dict[tuple[str, str], Any]:
    return {
        (method.upper(), str(pattern.pattern)): pattern.callback.view_class
        for pattern in operations
        for method in METHODS
        if hasattr(pattern.callback.view_class, method)
    }


class Expected(NamedTuple):
    annotator: int
    outsider: int
    body: Any = None


ROUND = {"project": "helpful", "snapshot": 1, "method": "dpo", "reference": 1, "fresh_prompts": 1}
RUN = {"method": "pretrain", "version": 1, "text_set": 1}
SAMPLING = {"project": "helpful", "version": 1, "prompt_set": 1}
PROJECT = "projects/<slug:slug>"
#: The outsider is an admin elsewhere: lists are empty, rows are not found, bodies name nothing.
TABLE: dict[tuple[str, str], Expected] = {
    ("GET", "tokens"): Expected(200, 200),
    ("POST", "tokens"): Expected(201, 201, {"name": "mine"}),
    ("DELETE", "tokens/<int:pk>"): Expected(204, 404),
    ("GET", "projects"): Expected(200, 200),
    ("POST", "projects"): Expected(403, 201, {"slug": "new", "name": "New"}),
    ("GET", PROJECT): Expected(200, 404),
    ("PATCH", PROJECT): Expected(403, 404, {"name": "Mine now"}),
    ("GET", f"{PROJECT}/progress"): Expected(403, 404),
    ("GET", f"{PROJECT}/agreement"): Expected(403, 404),
    ("GET", f"{PROJECT}/throughput"): Expected(403, 404),
    ("GET", f"{PROJECT}/comparisons"): Expected(403, 404),
    ("GET", f"{PROJECT}/comparisons/<int:pk>"): Expected(403, 404),
    ("PATCH", f"{PROJECT}/comparisons/<int:pk>"): Expected(403, 404, {"topics": ["violence"]}),
    ("GET", f"{PROJECT}/terms"): Expected(403, 404),
    ("PATCH", f"{PROJECT}/terms"): Expected(403, 404, {"repeat_every": 20}),
    ("POST", f"{PROJECT}/imports"): Expected(403, 404),
    ("POST", f"{PROJECT}/texts"): Expected(403, 404),
    ("POST", f"{PROJECT}/rankings"): Expected(403, 404),
    ("GET", f"{PROJECT}/labels"): Expected(403, 404),
    ("POST", f"{PROJECT}/next"): Expected(200, 404, {}),
    ("POST", f"{PROJECT}/ahead"): Expected(200, 404, {}),
    ("POST", f"{PROJECT}/consent"): Expected(200, 404, {"version": 1}),
    ("GET", f"{PROJECT}/flags"): Expected(403, 404),
    ("POST", f"{PROJECT}/undo"): Expected(409, 404, {"idempotency_key": "u"}),
    ("GET", f"{PROJECT}/snapshots"): Expected(403, 404),
    ("POST", f"{PROJECT}/snapshots"): Expected(403, 404, {}),
    ("GET", f"{PROJECT}/judges"): Expected(403, 404),
    ("POST", f"{PROJECT}/judges"): Expected(
        403, 404, {"name": "kind", "url": "https://example.org/v1", "model": "m"}
    ),
    ("GET", f"{PROJECT}/judges/<int:pk>"): Expected(403, 404),
    ("GET", f"{PROJECT}/judges/<int:pk>/judgings"): Expected(403, 404),
    ("POST", f"{PROJECT}/judges/<int:pk>/judgings"): Expected(403, 404, {}),
    ("POST", f"{PROJECT}/judges/<int:pk>/accept"): Expected(403, 404, {"reason": "It agrees."}),
    ("POST", "assignments/<int:pk>/judgment"): Expected(
        201, 404, {"answer": "left", "idempotency_key": "k"}
    ),
    ("POST", "assignments/<int:pk>/skip"): Expected(200, 404, {}),
    ("POST", "assignments/<int:pk>/shown"): Expected(200, 404, {}),
    ("POST", "assignments/<int:pk>/flag"): Expected(201, 404, {"kind": "broken"}),
    ("POST", "flags/<int:pk>/settle"): Expected(403, 404, {}),
    ("POST", "judgments/<int:pk>/revise"): Expected(
        404, 404, {"answer": "left", "idempotency_key": "r"}
    ),
    ("GET", "my/judgments"): Expected(200, 200),
    ("GET", "my/keys"): Expected(200, 200),
    ("PUT", "my/keys"): Expected(200, 200, {"keys": {"skip": "x"}}),
    ("GET", "my/hours"): Expected(200, 200),
    ("GET", "prompt-sets"): Expected(403, 200),
    ("POST", "prompt-sets"): Expected(403, 415, {}),
    ("GET", "snapshots/<int:pk>"): Expected(403, 404),
    ("GET", "snapshots/<int:pk>/rows"): Expected(403, 404),
    ("GET", "snapshots/<int:pk>/preflight"): Expected(403, 404),
    ("POST", "advice"): Expected(403, 200, {"case": {"task": "style"}}),
    ("POST", "plan"): Expected(403, 200, {"config": {"method": "dpo", "base": {"source": "demo"}}}),
    ("GET", "rounds"): Expected(403, 200),
    ("POST", "rounds"): Expected(403, 422, ROUND),
    ("GET", "rounds/<int:pk>"): Expected(403, 404),
    ("GET", "rounds/<int:pk>/progress"): Expected(403, 404),
    ("POST", "rounds/<int:pk>/cancel"): Expected(403, 404, {}),
    ("POST", "rounds/<int:pk>/retry"): Expected(403, 404, {}),
    ("POST", "rounds/<int:pk>/promote"): Expected(403, 404, {}),
    ("POST", "rounds/<int:pk>/reject"): Expected(403, 404, {}),
    ("GET", "runs"): Expected(403, 200),
    ("POST", "runs"): Expected(403, 422, RUN),
    ("GET", "runs/<int:pk>"): Expected(403, 404),
    ("GET", "runs/<int:pk>/events"): Expected(403, 404),
    ("GET", "runs/<int:pk>/metrics"): Expected(403, 404),
    ("GET", "jobs"): Expected(403, 200),
    ("GET", "jobs/<int:pk>"): Expected(403, 404),
    ("POST", "jobs/<int:pk>/cancel"): Expected(403, 404, {}),
    ("POST", "jobs/<int:pk>/retry"): Expected(403, 404, {}),
    ("GET", "queues"): Expected(403, 200),
    ("POST", "samplings"): Expected(403, 422, SAMPLING),
    ("GET", "text-sets"): Expected(403, 200),
    ("POST", "text-sets"): Expected(403, 415, {}),
    ("GET", "text-sets/<int:pk>"): Expected(403, 404),
    ("GET", "versions"): Expected(403, 200),
    ("POST", "versions"): Expected(403, 201, {"source": "demo"}),
    ("GET", "versions/<int:pk>"): Expected(403, 404),
}


def address(route: str, world: World) -> str:
    kind = next(
        (name for name in ("judges", "comparisons") if f"/{name}/<" in route), route.split("/")[0]
    )
    keys = {
        "tokens": world.token,
        "assignments": world.assignment,
        "comparisons": world.assignment.comparison,
        "flags": world.flag,
        "judgments": world.assignment,  # no judgment has its key
        "snapshots": world.snapshot,
        "rounds": world.round,
        "runs": world.run,
        "text-sets": world.text_set,
        "jobs": world.run.job,
        "versions": world.base,
        "judges": world.judge,
    }
    pk = str(keys[kind].pk) if kind in keys else ""
    return "/" + route.replace("<slug:slug>", "helpful").replace("<int:pk>", pk)


def test_the_table_holds_every_operation() -> None:
    assert set(TABLE) == set(served())


@pytest.mark.parametrize(("method", "route"), list(TABLE), ids=" ".join)
def test_strangers_outsiders_and_annotators(method: str, route: str, world: World) -> None:
    expected, place = TABLE[method, route], address(route, world)
    spent = make_api_token(user=world.people.rita, workspace=world.people.workspace, name="old")
    revoke_api_token(token=ApiToken.objects.get(name="old"))
    for stranger in (Caller(), Caller(spent), Caller("aa_made-up"), Caller("ä")):
        reply = stranger.send(method, place, expected.body)
        assert reply.status_code == 401
        assert reply["WWW-Authenticate"] == "Bearer"
        assert_problem(reply)
    outside = world.charlie.send(method, place, expected.body)
    assert outside.status_code == expected.outsider, outside.content
    if route == "queues":
        found = outside.json()
        assert [queue["queued"] for queue in found["results"]] == [0] * len(Job.Queue)
        assert found["workers"] == []
    elif method == "GET" and outside.status_code == 200 and route != "tokens":
        nothing = {"count": 0, "next": None, "previous": None, "results": []}
        own_keys = {"on": True, "pace": True, "keys": {}}
        assert outside.json() in (nothing, own_keys, {"days": []})
    inside = world.bob.send(method, place, expected.body)
    assert inside.status_code == expected.annotator, inside.content
    for reply in (outside, inside):
        if reply.status_code >= 400:
            assert_problem(reply)


def assert_problem(reply: Any) -> None:
    assert reply["Content-Type"] == "application/problem+json"
    body = reply.json()
    assert body["status"] == reply.status_code
    assert body["type"].startswith("urn:annotate-and-align:")
    assert body["title"]
    assert body["detail"]


@pytest.mark.parametrize(("method", "route"), list(TABLE), ids=" ".join)
def test_what_an_annotator_gets_never_says_what_wrote_it(
    method: str, route: str, world: World
) -> None:
    reply = world.bob.send(method, address(route, world), TABLE[method, route].body)
    said = reply.content.decode().lower()
    for secret in (
        "origin", "propensity", "old_new", "round:", "smollm", "version:", "response_a",
        "response_b", "swapped", "digest", "priority", world.base.name.lower(),
    ):  # fmt: skip
        assert secret not in said


@pytest.mark.parametrize("route", sorted({route for _, route in TABLE}))
def test_other_methods_are_405(route: str, world: World) -> None:
    for method in ("get", "post", "put", "patch", "delete", "options"):
        if (method.upper(), route) not in TABLE:
            reply = world.alice.send(method, address(route, world))
            assert reply.status_code == 405
            assert_problem(reply)


@pytest.mark.parametrize(
    "place", ["", "/", "/nowhere", "/projects/", "/projects/a b", "/rounds/x", "/runs/-1/events"]
)
def test_an_unknown_address_is_a_problem_too(place: str, db: None) -> None:
    for method in ("get", "post", "delete"):
        reply = Caller().send(method, place)
        assert reply.status_code == 404, f"{BASE}{place}"
        assert_problem(reply)


@pytest.mark.parametrize("number", ["0", "999999", "9" * 30, "9" * 400])
def test_numbers_no_row_has_are_not_found(number: str, world: World) -> None:
    for route in sorted({route for method, route in TABLE if "<int:pk>" in route}):
        method = next(m for m, r in TABLE if r == route)
        place = "/" + route.replace("<int:pk>", number)
        reply = world.alice.send(method, place, TABLE[method, route].body)
        assert reply.status_code == 404
        assert_problem(reply)
