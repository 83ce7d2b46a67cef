"""Topics of prompts: brought by imports, shown and filtered by, and never served to who avoids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from annotate.errors import AnnotateError, ImportRefused, LeaseLost
from annotate.models import Annotator, Assignment, Comparison, Project, Prompt
from annotate.services.ingest import import_comparisons, import_prompts
from annotate.services.participation import set_avoided
from annotate.services.prefetching import lease_ahead, show_assignment
from annotate.services.rankings import import_rankings
from annotate.services.serving import annotator_for, next_assignment, skip_assignment
from annotate.services.texts import import_texts
from annotate.services.topics import set_topics
from tests.api.world import caller
from tests.data import write_rows
from tests.factories import make_comparison, make_project
from tests.people import People

pytestmark = pytest.mark.django_db

HARSH = {"prompt": "Harsh?", "chosen": "a", "rejected": "b", "topics": ["Violence", "health"]}
MILD = {"prompt": "Mild?", "chosen": "a", "rejected": "b", "topic": "gardens"}


@pytest.fixture
def project(people: People, tmp_path: Path) -> Project:
    made = make_project(people.workspace, overlap=2)
    import_comparisons(project=made, path=write_rows(tmp_path / "pairs.jsonl", [HARSH, MILD]))
    return made


@pytest.fixture
def bob(people: People) -> Annotator:
    return annotator_for(user=people.bob, workspace=people.workspace)


def topics(text: str) -> list[str]:
    prompt = next(each for each in Prompt.objects.all() if each.messages[-1]["content"] == text)
    return [topic.name for topic in prompt.topics.all()]


def served(project: Project, annotator: Annotator) -> list[str]:
    found = []
    while assignment := next_assignment(project=project, annotator=annotator):
        found.append(assignment.comparison.prompt.messages[-1]["content"])
        skip_assignment(assignment=assignment, annotator=annotator)
    return found


def test_every_format_brings_topics(people: People, project: Project, tmp_path: Path) -> None:
    assert topics("Harsh?") == ["health", "violence"]
    assert topics("Mild?") == ["gardens"]
    ranked = make_project(people.workspace, slug="ranked", kind="rankings")
    rows = [{"prompt": "Rank?", "responses": list("abcd"), "topics": "war, War,health"}]
    import_rankings(project=ranked, path=write_rows(tmp_path / "ranked.jsonl", rows))
    assert topics("Rank?") == ["health", "war"]
    labelled = make_project(people.workspace, slug="labelled", kind="labels")
    table = tmp_path / "texts.csv"
    table.write_text('text,topics\nLabel?,"war, health"\n', encoding="utf-8")
    import_texts(project=labelled, path=table)
    assert topics("Label?") == ["health", "war"]
    rows = [{"prompt": "Fresh?", "topic": "war"}, {"prompt": "Mild?", "topic": "quiet"}]
    path = write_rows(tmp_path / "prompts.jsonl", rows)
    import_prompts(workspace=people.workspace, path=path, name="fresh", use="fresh")
    assert topics("Fresh?") == ["war"]
    assert topics("Mild?") == ["gardens", "quiet"]  # what another file said stays


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (3, "topics is 3, not a list of names"),
        ([["a"]], "not a list of names"),
        (["x" * 41], "of 40 characters each"),
        ([str(n) for n in range(21)], "at most 20"),
        (["\0"], "NUL"),
    ],
)
def test_a_row_with_impossible_topics_is_named(
    project: Project, tmp_path: Path, wrong: Any, reason: str
) -> None:
    path = write_rows(tmp_path / "wrong.jsonl", [MILD, {**MILD, "prompt": "New?", "topics": wrong}])
    with pytest.raises(ImportRefused, match=f"line 2: .*{reason}"):
        import_comparisons(project=project, path=path)


def test_nobody_is_served_what_they_avoid(project: Project, bob: Annotator) -> None:
    set_avoided(annotator=bob, topics=["violence"])
    assert served(project, bob) == ["Mild?"]


def test_what_is_held_goes_back_when_it_is_avoided(
    people: People, project: Project, bob: Annotator
) -> None:
    for number in range(120):
        make_comparison(project, prompt=f"Question {number}?")
    Comparison.objects.filter(prompt__topics__name="violence").update(priority=1)
    held = next_assignment(project=project, annotator=bob)
    assert held is not None
    assert topics(held.comparison.prompt.messages[-1]["content"]) == ["health", "violence"]
    ahead = lease_ahead(project=project, annotator=bob)
    set_topics(prompt=ahead[0].comparison.prompt, topics=["Violence"])
    set_avoided(annotator=bob, topics=["violence"])
    for assignment in (held, ahead[0]):
        assignment.refresh_from_db()
        assert assignment.state == Assignment.State.EXPIRED
        given_back = assignment.comparison
        given_back.refresh_from_db()
        # A judgment that came with the file fills a place too.
        assert given_back.slots + given_back.judgments.count() == project.overlap
        with pytest.raises(LeaseLost, match="asked not to see"):
            show_assignment(assignment=assignment, annotator=bob)
    # What becomes a topic later goes back as well.
    set_topics(prompt=ahead[1].comparison.prompt, topics=["violence"])
    ahead[1].refresh_from_db()
    assert ahead[1].state == Assignment.State.EXPIRED
    with pytest.raises(AnnotateError, match="at most 20"):
        set_topics(prompt=ahead[1].comparison.prompt, topics=[str(n) for n in range(21)])


def test_topics_are_shown_filtered_by_and_set(
    people: People, client: Client, project: Project
) -> None:
    client.force_login(people.rita)
    page = client.get("/projects/helpful/comparisons/").content.decode()
    assert "violence</span>" in page
    only = client.get("/projects/helpful/comparisons/?topic=violence").content.decode()
    assert "Harsh?" in only
    assert "Mild?" not in only
    harsh = Comparison.objects.get(prompt__topics__name="violence")
    one = f"/projects/helpful/comparisons/{harsh.pk}/"
    assert 'value="health, violence"' in client.get(one).content.decode()
    client.post(f"{one}topics", {"topics": "<b>War</b>, "})
    assert topics("Harsh?") == ["<b>war</b>"]
    assert "&lt;b&gt;war" in client.get(one).content.decode()
    assert (
        "at most 20"
        in client.post(f"{one}topics", {"topics": "x" * 41}, follow=True).content.decode()
    )
    # Annotators choose from what there is.
    client.force_login(people.bob)
    assert 'value="gardens"' in client.get("/my-work/").content.decode()


def test_a_prompt_sets_page_shows_and_filters(
    people: People, client: Client, tmp_path: Path
) -> None:
    rows = [{"prompt": "Fresh?", "topic": "war"}, {"prompt": "Calm?"}]
    path = write_rows(tmp_path / "prompts.jsonl", rows)
    made = import_prompts(workspace=people.workspace, path=path, name="fresh", use="fresh")
    client.force_login(people.rita)
    page = client.get(f"/prompts/{made.pk}/").content.decode()
    assert "war</span>" in page
    only = client.get(f"/prompts/{made.pk}/?topic=war").content.decode()
    assert "Fresh?" in only
    assert "Calm?" not in only


def test_the_api_lists_and_sets_topics(people: People, project: Project) -> None:
    alice = caller(people.alice, people.workspace)
    listed = alice.get("/projects/helpful/comparisons", topic="violence").json()
    assert [row["topics"] for row in listed["results"]] == [["health", "violence"]]
    address = f"/projects/helpful/comparisons/{listed['results'][0]['id']}"
    assert alice.send("PATCH", address, {"topics": ["War"]}).json()["topics"] == ["war"]
    assert alice.get("/projects/helpful/comparisons", topic="violence").json()["count"] == 0
