"""Browsing comparisons, and the page of one."""

from __future__ import annotations

from typing import Any

from django.test import Client

from annotate.models import Comparison
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People
from tests.training.rows import make_round, make_snapshot, make_version


def test_filters_tell_open_complete_and_disagreement_apart(people: People, client: Client) -> None:
    project = make_project(people.workspace)
    x, y = (make_annotator(people.workspace, name=name) for name in "xy")
    _, agreed, split = (make_comparison(project, prompt=f"{p}?") for p in ("F", "A", "S"))
    Comparison.objects.filter(pk__in=[agreed.pk, split.pk]).update(slots=0)
    for pair, second in ((agreed, "a"), (split, "b")):
        make_judgment(pair, x, "a")
        make_judgment(pair, y, second)
    client.force_login(people.rita)

    def shown(show: str) -> set[str]:
        page = client.get(f"/projects/helpful/comparisons/?show={show}").content.decode()
        return {name for name in "FAS" if f">{name}?<" in page}

    assert shown("all") == shown("nonsense") == {"F", "A", "S"}
    assert shown("open") == {"F"}
    assert shown("complete") == {"A", "S"}
    assert shown("disagreement") == {"S"}
    page = client.get("/projects/helpful/comparisons/").content.decode()
    assert "A is better" in page
    assert "1 A · 1 B" in page


def test_a_page_of_the_list_costs_the_same_for_any_number_of_rows(
    people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    project = make_project(people.workspace)
    for number in range(30):
        make_comparison(project, prompt=f"{number}?")
    client.force_login(people.rita)
    with django_assert_max_num_queries(10):
        page = client.get("/projects/helpful/comparisons/?page=2").content.decode()
    assert "Page 2 of 2" in page
    assert client.get("/projects/helpful/comparisons/?page=zebra").status_code == 200


def test_one_comparison_shows_who_said_what_and_what_it_taught(
    people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    project = make_project(people.workspace)
    snapshot = make_snapshot(project)
    row = snapshot.rows.filter(split="train").first()
    assert row is not None
    version = make_version(people.workspace, "helpful-dpo", kind="policy")
    round = make_round(project, snapshot=snapshot)
    round.policy_version = version
    round.save()
    comparison = row.preference.comparison
    make_judgment(
        comparison,
        make_annotator(people.workspace, people.bob),
        "b",
        rationale="<b>because</b>",
        active_ms=4200,
        swapped=True,
    )
    client.force_login(people.rita)
    with django_assert_max_num_queries(16):
        page = client.get(f"/projects/helpful/comparisons/{comparison.pk}/").content.decode()
    assert "teacher" in page
    assert "&lt;b&gt;because&lt;/b&gt;" in page
    assert "4 s" in page
    assert "B left" in page
    assert f'href="/projects/helpful/snapshots/{snapshot.number}/"' in page
    assert f'href="/models/{version.pk}/"' in page


def test_a_held_out_row_taught_nobody(people: People, client: Client) -> None:
    project = make_project(people.workspace)
    row = make_snapshot(project).rows.filter(split="test").first()
    assert row is not None
    client.force_login(people.rita)
    address = f"/projects/helpful/comparisons/{row.preference.comparison_id}/"
    assert "teaches none" in client.get(address).content.decode()


def test_hostile_answers_stay_text(people: People, client: Client) -> None:
    project = make_project(people.workspace)
    pair = make_comparison(project, prompt="<img src=x>", a="<script>alert(1)</script>", b="")
    client.force_login(people.rita)
    for address in ("comparisons/", f"comparisons/{pair.pk}/"):
        page = client.get(f"/projects/helpful/{address}").content.decode()
        assert "<script>alert" not in page
        assert "<img src=x>" not in page
    assert "(empty response)" in page
