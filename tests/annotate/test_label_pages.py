"""The pages of a project of labels: made by a form, filled by a file, read by a researcher."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from annotate.models import Comparison, Judgment, Project
from annotate.services.freezing import freeze_snapshot
from annotate.services.judging import submit_judgment
from annotate.services.labels import labels_from_text
from annotate.services.projects import create_project
from annotate.services.serving import annotator_for, next_assignment
from annotate.services.texts import import_texts
from tests.people import People

SMS = Path(__file__).parents[1] / "data" / "sms" / "spam.tsv"


@pytest.fixture
def rita(people: People, client: Client) -> Client:
    client.force_login(people.rita)
    return client


@pytest.fixture
def project(people: People) -> Project:
    """40 messages; Bob gave each the label that it is known by."""
    made = create_project(
        workspace=people.workspace,
        name="Spam",
        slug="spam",
        kind="labels",
        labels=labels_from_text("ham\nspam"),
    )
    import_texts(project=made, path=SMS)
    bob = annotator_for(user=people.bob, workspace=people.workspace)
    while assignment := next_assignment(project=made, annotator=bob):
        submit_judgment(
            assignment=assignment,
            annotator=bob,
            answer=assignment.comparison.known_label,
            idempotency_key=str(assignment.pk),
        )
    return made


def test_a_form_makes_one_and_the_next_page_takes_texts(rita: Client) -> None:
    form = {"name": "Spam", "slug": "spam", "overlap": 1, "kind": "labels"}
    refused = rita.post("/projects/", {**form, "labels": "ham [1]\nspam [1]"})
    assert refused.status_code == 422
    assert "two labels have the key" in refused.content.decode()
    made = rita.post("/projects/", {**form, "labels": "ham: by hand\nspam"}, follow=True)
    assert "Import texts" in made.content.decode()
    newest = Project.objects.get().guidelines.get()
    assert [(label["name"], label["key"]) for label in newest.labels] == [
        ("ham", "1"),
        ("spam", "2"),
    ]
    sent = rita.post(
        "/projects/spam/import", {"file": SimpleUploadedFile("t.tsv", SMS.read_bytes())}
    )
    assert "40 new texts (0 already there), 40 of the new ones with a known label" in (
        " ".join(sent.content.decode().split())
    )
    bad = SimpleUploadedFile("t.csv", b"text,label\nhello,egg\n")
    refused = rita.post("/projects/spam/import", {"file": bad})
    assert refused.status_code == 422
    assert "is none of the project" in refused.content.decode()


def test_settings_show_the_list_and_keep_it_as_it_was(rita: Client, project: Project) -> None:
    page = rita.get("/projects/spam/settings").content.decode()
    assert "ham [1]" in page
    assert "allow_tie" not in page
    form = {"name": "Spam", "state": "open", "overlap": 1, "lease_s": 900}
    rita.post("/projects/spam/settings", {**form, "labels": "ham [1]\r\nspam [2]\r\n"})
    assert project.guidelines.count() == 1
    rita.post("/projects/spam/settings", {**form, "labels": "ham\r\nspam\r\nunsure"})
    assert project.guidelines.count() == 2


def test_every_page_of_it_can_be_read(rita: Client, project: Project) -> None:
    snapshot = freeze_snapshot(project=project, test_fraction=0.3)
    item = Comparison.objects.filter(known_label="spam").earliest("pk")
    for place, words in {
        "/projects/spam/": "Which labels are hard?",
        "/projects/spam/comparisons/": "40 texts",
        f"/projects/spam/comparisons/{item.pk}/": "known as spam",
        "/projects/spam/snapshots/1/": "labelled texts",
        f"/snapshots/{snapshot.pk}/preflight/": "spam",
        "/projects/": "40 texts judged",
        "/judge/": "Spam",
        "/rounds/": "Rounds",
    }.items():
        reply = rita.get(place)
        assert reply.status_code == 200, place
        assert words in reply.content.decode(), place


def test_the_plain_form_stores_a_label(people: People, client: Client, project: Project) -> None:
    client.force_login(people.rita)
    project.overlap = 2
    project.save()
    Comparison.objects.update(slots=1)
    page = client.get("/judge/spam/")
    assignment = page.context["assignment"]
    form = {"assignment": assignment.pk, "answer": "spam", "key": "k"}
    assert client.post("/judge/spam/answer", {**form, "answer": "left"}).status_code == 422
    assert not Judgment.objects.filter(assignment=assignment).exists()
    client.post("/judge/spam/answer", form)
    assert Judgment.objects.get(assignment=assignment).label == "spam"
    assert client.post("/judge/spam/undo", {"key": "u"}).status_code == 302
    assert Judgment.objects.filter(annotator__user=people.rita).current().count() == 0
