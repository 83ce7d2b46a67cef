"""Bad input of every kind, and what is told about it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import OperationalError
from django.test import Client, override_settings
from django.urls import include, path
from rest_framework.request import Request
from rest_framework.response import Response

from annotate import errors as annotate_errors
from annotate.models import Project
from rlhf_platform.accounts.api.endpoint import Endpoint
from rlhf_platform.api import PROBLEMS
from tests.api.world import BASE, World, caller
from tests.people import People
from training import errors as training_errors


def raw(world: World, body: bytes, kind: str = "application/json", **more: Any) -> Any:
    rita = world.rita
    return rita._client.post(
        f"{BASE}/projects", data=body, content_type=kind, headers=rita._headers, **more
    )


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"name": NaN}', b"\xff\xfe", b"[" * 100_000, b'{"overlap": ' + b"9" * 5000 + b"}"],
    ids=["cut", "nan", "not utf-8", "deep", "long number"],
)
def test_what_is_no_json_is_400(body: bytes, world: World) -> None:
    reply = raw(world, body)
    assert reply.status_code == 400
    assert reply.json()["type"] == "urn:annotate-and-align:bad-request"
    assert "JSON" in reply.json()["detail"]


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"null", b"7"])
def test_json_that_is_no_object_is_422(body: bytes, world: World) -> None:
    reply = raw(world, body)
    assert reply.status_code == 422
    assert reply.json()["errors"]


def test_every_wrong_field_is_named(world: World) -> None:
    reply = world.rita.post("/projects", {"slug": "a b", "overlap": 0, "nmae": "X"})
    assert reply.status_code == 422
    # Unknown names come first and alone: the rest may follow from them.
    assert [error["field"] for error in reply.json()["errors"]] == ["nmae"]
    assert "known: " in reply.json()["errors"][0]["message"]
    reply = world.rita.post("/projects", {"slug": "a b", "overlap": 0})
    assert {error["field"] for error in reply.json()["errors"]} == {"slug", "overlap", "name"}
    assert "slug: " in reply.json()["detail"]


@pytest.mark.parametrize("text", ["nul \0", "surrogate \ud800"])
def test_text_that_no_database_keeps_is_refused(text: str, world: World) -> None:
    for place, body in (
        ("/projects", {"slug": "x", "name": text}),
        ("/projects", {"slug": "x", "name": "x", "guidelines": text}),
        ("/tokens", {"name": text}),
        (f"/assignments/{world.assignment.pk}/judgment", {"answer": "left", "idempotency_key": "k",
                                                          "rationale": text}),
    ):  # fmt: skip
        sender = world.bob if "assignments" in place else world.rita
        assert sender.post(place, body).status_code == 422, (place, body)


def test_bodies_are_json_and_of_bounded_size(world: World) -> None:
    assert raw(world, b"slug=x", "application/x-www-form-urlencoded").status_code == 415
    assert raw(world, b"slug=x", "text/plain").status_code == 415
    reply = raw(world, b'{"name": "' + b"x" * 1024 * 1024 + b'"}')
    assert reply.status_code == 413
    assert reply.json()["type"] == "urn:annotate-and-align:too-large"
    assert raw(world, b"{}", CONTENT_LENGTH="many").status_code == 413


def test_a_body_where_none_belongs_is_refused(world: World) -> None:
    for place in (f"/rounds/{world.round.pk}/cancel", "/projects/helpful/next"):
        reply = world.rita.post(place, {"please": True})
        assert reply.status_code == 422
        assert reply.json()["errors"][0]["field"] == "please"
        assert world.rita.send("POST", place).status_code in (200, 204)  # no body at all


@pytest.mark.parametrize(
    "query", [{"limit": "x"}, {"limit": 0}, {"limit": 1000}, {"offset": -1}, {"offset": "9" * 30}]
)
def test_a_page_out_of_range_is_refused(query: dict[str, Any], world: World) -> None:
    reply = world.rita.get("/projects", **query)
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["field"] == next(iter(query))


def test_an_unknown_filter_is_refused(world: World) -> None:
    for place in ("/projects", "/rounds", "/versions", "/prompt-sets", "/tokens"):
        reply = world.rita.get(place, sate="open")
        assert reply.status_code == 422, place
        assert reply.json()["errors"][0]["field"] == "sate"


def test_an_accept_header_is_no_reason_to_refuse(world: World) -> None:
    rita = world.rita
    rita._headers["Accept"] = "text/html, application/problem+json"
    assert rita.get("/projects").status_code == 200
    assert rita.get("/projects/none").status_code == 404


def test_nothing_is_cached(world: World) -> None:
    for place in ("/projects", "/projects/none"):
        assert world.rita.get(place)["Cache-Control"] == "private, no-store"


def test_a_member_of_no_workspace_is_told_so(people: People) -> None:
    charlie = caller(people.charlie, people.elsewhere)
    people.charlie.memberships.all().delete()
    reply = charlie.get("/projects")
    assert reply.status_code == 401
    assert "left the workspace" in reply.json()["detail"]
    signed_in = Client()
    signed_in.force_login(people.charlie)
    reply = signed_in.get(f"{BASE}/projects")
    assert reply.status_code == 403
    assert "no workspace" in reply.json()["detail"]


def test_a_session_reads_and_writes_with_its_csrf_token(world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(world.people.rita)
    assert client.get(f"{BASE}/projects").status_code == 200
    body = json.dumps({"slug": "new", "name": "New"})
    refused = client.post(f"{BASE}/projects", body, content_type="application/json")
    assert refused.status_code == 403
    assert "CSRF" in refused.json()["detail"]
    client.get("/rounds/")  # a page with a form sets the cookie
    token = client.cookies["csrftoken"].value
    taken = client.post(
        f"{BASE}/projects", body, content_type="application/json", headers={"X-CSRFToken": token}
    )
    assert taken.status_code == 201
    assert Project.objects.get(slug="new").created_by == world.people.rita


def test_every_error_of_both_trees_has_its_status() -> None:
    for tree in (annotate_errors, training_errors):
        ours = [
            each
            for each in vars(tree).values()
            if isinstance(each, type) and issubclass(each, Exception)
        ]
        assert [each.__name__ for each in ours if each not in PROBLEMS] == []


class Broken(Endpoint):
    def get(self, request: Request) -> Response:
        raise RuntimeError("the secret of the house")


class Busy(Endpoint):
    def get(self, request: Request) -> Response:
        raise OperationalError("database is locked")


urlpatterns = [
    path(
        "api/v1/",
        include([path("broken", Broken.as_view()), path("busy", Busy.as_view())]),
    )
]


@override_settings(ROOT_URLCONF=__name__)
def test_what_nobody_expected_is_logged_and_not_told(
    people: People, caplog: pytest.LogCaptureFixture
) -> None:
    reply = caller(people.rita, people.workspace).get("/broken")
    assert reply.status_code == 500
    assert reply["Content-Type"] == "application/problem+json"
    assert "secret" not in reply.content.decode()
    assert "Traceback" not in reply.content.decode()
    assert "the secret of the house" in caplog.text


@override_settings(ROOT_URLCONF=__name__)
def test_a_busy_database_is_503(people: People, settings: LazySettings) -> None:
    reply = caller(people.rita, people.workspace).get("/busy")
    assert reply.status_code == 503
    assert "again" in reply.json()["detail"]
