"""What is answered while the database is away: a sentence, with the right status."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client

from tests.people import People

pytestmark = pytest.mark.django_db


@contextmanager
def away() -> Iterator[None]:
    def refuse(execute: Callable[..., Any], *rest: Any) -> None:
        raise OperationalError("server closed the connection unexpectedly: at 10.0.0.7")

    with connection.execute_wrapper(refuse):
        yield


@pytest.fixture
def client(people: People) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(people.rita)
    return client


def test_a_page_says_that_the_database_is_away_and_nothing_else(client: Client) -> None:
    with away():
        response = client.get("/rounds/?page=2")
    page = response.content.decode()
    assert response.status_code == 503
    assert response["Retry-After"] == "5"
    assert "Nothing is lost" in page
    assert 'href="/rounds/?page=2"' in page
    assert "10.0.0.7" not in page


def test_a_form_is_told_to_be_sent_again(client: Client) -> None:
    with away():
        response = client.post("/jobs/1/cancel")
    assert response.status_code == 503
    assert "was not stored" in response.content.decode()


def test_the_api_answers_as_it_always_does(client: Client) -> None:
    with away():  # the session itself cannot be read
        response = client.get("/api/v1/rounds")
    assert response.status_code == 503
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["type"] == "urn:annotate-and-align:database-busy"


def test_readiness_follows_the_database(client: Client) -> None:
    assert client.get("/readyz").status_code == 200
    with away():
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200


def test_a_fault_of_ours_is_a_500(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr("training.views.jobs.render", broken)
    response = client.get("/jobs/")
    assert response.status_code == 500
    assert "broke on our side" in response.content.decode()
    assert "secret" not in response.content.decode()
