from __future__ import annotations

from typing import Any

from annotate.models import Guideline, Project
from tests.api.world import World, caller
from tests.factories import make_project
from tests.people import People


def test_a_project_is_made_and_read(people: People) -> None:
    rita = caller(people.rita, people.workspace)
    body = {"slug": "safety", "name": "Safety", "overlap": 3, "guidelines": "Be safe.\n",
            "allow_tie": False, "lease_s": 60}  # fmt: skip
    made = rita.post("/projects", body)
    assert made.status_code == 201
    found = rita.get("/projects/safety").json()
    assert found == made.json()
    assert found | body == found
    assert (found["state"], found["guideline_version"]) == ("open", 1)
    again = rita.post("/projects", body)
    assert again.status_code == 409
    assert again.json()["type"] == "urn:annotate-and-align:slug-taken"


def test_settings_change_and_guidelines_become_the_next_version(people: People) -> None:
    make_project(people.workspace)
    rita = caller(people.rita, people.workspace)
    body = {"name": "Other", "state": "paused", "overlap": 2, "guidelines": "New text"}
    changed = rita.send("PATCH", "/projects/helpful", body)
    assert changed.status_code == 200
    assert changed.json() | body == changed.json()
    assert changed.json()["guideline_version"] == 2
    rita.send("PATCH", "/projects/helpful", {"guidelines": "New text"})
    assert Guideline.objects.count() == 2
    assert rita.send("PATCH", "/projects/helpful", {}).status_code == 200
    assert rita.send("PATCH", "/projects/helpful", {"slug": "x"}).status_code == 422


def test_an_overlap_below_what_is_judged_is_409(world: World) -> None:
    rita = world.rita
    assert rita.send("PATCH", "/projects/helpful", {"overlap": 2}).status_code == 200
    world.bob.post(
        f"/assignments/{world.assignment.pk}/judgment", {"answer": "tie", "idempotency_key": "k"}
    )
    rita.post("/projects/helpful/next")
    refused = rita.send("PATCH", "/projects/helpful", {"overlap": 1})
    assert refused.status_code == 409
    assert "2 or more" in refused.json()["detail"]


def test_an_annotator_sees_open_projects_only(people: People) -> None:
    make_project(people.workspace, slug="open")
    make_project(people.workspace, slug="paused", state="paused")
    bob = caller(people.bob, people.workspace)
    assert [row["slug"] for row in bob.get("/projects").json()["results"]] == ["open"]
    assert bob.get("/projects/paused").status_code == 404
    rita = caller(people.rita, people.workspace)
    assert rita.get("/projects").json()["count"] == 2
    paused = rita.get("/projects", state="paused").json()["results"]
    assert [row["slug"] for row in paused] == ["paused"]


def test_a_list_costs_the_same_queries_however_long(
    people: People, django_assert_num_queries: Any
) -> None:
    rita = caller(people.rita, people.workspace)
    rita.get("/projects")  # notes the token's use
    for wanted in (1, 12):
        for number in range(Project.objects.count(), wanted):
            make_project(people.workspace, slug=f"p{number}")
        with django_assert_num_queries(3):  # token with membership, count, page
            page = rita.get("/projects", limit=10).json()
    assert page["count"] == 12
    assert len(page["results"]) == 10
    assert page["next"].endswith("/api/v1/projects?limit=10&offset=10")


def test_progress_agreement_and_throughput(world: World) -> None:
    world.bob.post(
        f"/assignments/{world.assignment.pk}/judgment",
        {"answer": "left", "idempotency_key": "k", "active_ms": 2000},
    )
    progress = world.rita.get("/projects/helpful/progress").json()
    assert progress == {
        "comparisons": 13, "complete": 13, "judgments": 13, "open_slots": 0, "live_leases": 0,
    }  # fmt: skip
    agreement = world.rita.get("/projects/helpful/agreement").json()
    assert agreement["alpha"] is None
    assert agreement["reason"]
    assert agreement["left_share"]["n"] == 1
    assert agreement["left_share"]["left"] == 1.0
    paces = world.rita.get("/projects/helpful/throughput").json()["results"]
    assert paces == [
        {"annotator": "Bob", "judgments": 1, "active_s": 2.0, "judgments_per_hour": 1800.0,
         "median_active_s": 2.0}
    ]  # fmt: skip
