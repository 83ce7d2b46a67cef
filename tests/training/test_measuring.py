"""Texts that somebody gives the advisor: a job measures them, and its number counts after that."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from tests.api.world import caller
from tests.people import People
from tests.training.rows import make_version
from tests.training.test_launching_runs import make_text_set
from training.engine.domain import Distance, Signal, TextMeasure
from training.engine.stretches import STRETCH, STRETCHES
from training.errors import CannotLaunch
from training.models import Job, ModelVersion
from training.services import queueing
from training.services.measuring import queue_measurement, succeed, texts_of

pytestmark = pytest.mark.django_db
CASE = {"task": "generation", "device": "gpu", "private": "unknown"}
SIDE = TextMeasure(
    characters=9000, words=2000, tokens=2500, scored_tokens=2040, bits_per_byte=1.5,
    bits_error=0.1, perplexity=30.5, fertility=1.25, whole_words=0.9, lost_tokens=0.0,
)  # fmt: skip


def found(level: float) -> dict[str, Any]:
    signal = Signal(name="bits per byte", own=1.5, general=1.0, level=level, says="1.50 times")
    return Distance(base="demo", own=SIDE, general=SIDE, signals=[signal]).as_json()


def end_well(level: float) -> Job:
    """A worker has measured what waits."""
    claim = queueing.claim_next(queues=[Job.Queue.SAMPLING])
    assert claim is not None
    succeed(claim, found(level))
    return Job.objects.get(pk=claim.job.pk)


@pytest.fixture
def rita(people: People, client: Client) -> Client:
    client.force_login(people.rita)
    return client


def test_pasted_text_is_measured_by_a_job_and_counts(rita: Client) -> None:
    sent = CASE | {"text": "words " * 900, "domain_distance": "same", "labelled_examples": 700}
    reply = rita.post("/advise/", sent)
    job = Job.objects.get()
    assert (job.kind, job.queue, job.payload["source"]) == ("measure", "sampling", "demo")
    place = reply.headers["Location"]
    assert place == f"/advise/?measured={job.pk}"
    page = rita.get(place)
    # The page does not wait: it advises without the number until there is one.
    assert "Your texts are being measured" in page.content.decode()
    assert page.context["advice"].case.domain_distance == 0.0
    assert page.context["form"]["labelled_examples"].value() == "700"

    assert end_well(0.83).payload["texts"] == []  # kept until they were measured
    page = rita.get(place)
    case = page.context["advice"].case
    assert (case.domain_distance, case.domain_measured) == (0.83, True)
    text = page.content.decode()
    assert "0.83 of 1 from general ones" in text
    assert "1.50 times" in text
    assert "30.5" in text
    # Whoever then changes something else keeps the number.
    page = rita.post("/advise/", CASE | {"measured": job.pk, "labelled_examples": 9})
    assert page.context["advice"].case.domain_distance == 0.83
    assert Job.objects.count() == 1


def test_a_file_and_a_text_set_are_measured_too(rita: Client, people: People) -> None:
    file = SimpleUploadedFile("mine.txt", "Wörter gehen weiter. ".encode() * 300)
    rita.post("/advise/", CASE | {"text_file": file})
    assert texts_of(Job.objects.get())[0].startswith("Wörter")
    law = make_text_set(people.workspace)
    rita.post("/advise/", CASE | {"text_set": law.pk})
    (text,) = texts_of(Job.objects.latest("pk"))
    assert text.count("Words of document") == 6


def test_of_much_text_stretches_are_measured(people: People) -> None:
    job = queue_measurement(workspace=people.workspace, source="demo", text="abc " * 300_000)
    assert [len(text) for text in texts_of(job)] == [STRETCH] * STRETCHES


def test_the_base_that_measures_writes_text(rita: Client, people: People) -> None:
    def source(**case: Any) -> str:
        assert rita.post("/advise/", CASE | {"text": "words"} | case).status_code == 302
        return str(Job.objects.latest("pk").payload["source"])

    assert source(base="minilm") == "demo"
    assert source(base="org/model") == "org/model"
    assert source(base="/etc") == "demo"
    assert source(base="org/model", base_config='{"model_type": "llama"}') == "demo"
    other = make_version(people.workspace, "other")
    ModelVersion.objects.filter(pk=other.pk).update(base={**other.base, "source": "org/other"})
    assert source(version=other.pk) == "org/other"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"text_file": ("a.txt", b"\xff\xfea\x00")}, "is UTF-16; convert it"),
        ({"text_file": ("a.txt", b" \n")}, "is empty"),
        ({"text_file": ("a.txt", b"x"), "text": "y"}, "One text is measured"),
    ],
)
def test_what_is_no_text_is_said_in_the_form(
    rita: Client, wrong: dict[str, Any], words: str
) -> None:
    sent = {
        name: SimpleUploadedFile(*value) if isinstance(value, tuple) else value
        for name, value in wrong.items()
    }
    page = rita.post("/advise/", CASE | sent)
    assert page.status_code == 422
    assert words in page.content.decode()
    assert not Job.objects.exists()


def test_a_measurement_that_failed_says_why(rita: Client) -> None:
    rita.post("/advise/", CASE | {"text": "too short"})
    claim = queueing.claim_next(queues=[Job.Queue.SAMPLING])
    assert claim is not None
    queueing.finish(claim=claim, to="failed", reason="refused", detail="DataError: 2 tokens")
    page = rita.get(f"/advise/?measured={claim.job.pk}").content.decode()
    assert "DataError: 2 tokens" in page
    job = rita.get(f"/jobs/{claim.job.pk}/").content.decode()
    assert "The texts could not be measured." in job
    assert "How far texts are from general ones" in job


def test_another_workspace_and_an_annotator_see_no_measurement(
    client: Client, people: People
) -> None:
    job = queue_measurement(workspace=people.workspace, source="demo", text="words")
    client.force_login(people.charlie)
    assert client.get(f"/advise/?measured={job.pk}").status_code == 404
    client.force_login(people.bob)
    assert client.get(f"/advise/?measured={job.pk}").status_code == 403
    client.force_login(people.rita)
    for wrong in ("x", "9" * 30, str(job.pk + 1)):
        assert client.get(f"/advise/?measured={wrong}").status_code == 404
    with pytest.raises(CannotLaunch, match="another workspace"):
        queue_measurement(
            workspace=people.workspace, source="demo", text_set=make_text_set(people.elsewhere)
        )


def test_the_api_measures_too(people: People) -> None:
    rita = caller(people.rita, people.workspace)
    reply = rita.post("/advice", {"case": {"task": "generation"}, "text": "words " * 900})
    assert reply.status_code == 200
    job = reply.json()["measuring"]
    early = rita.post("/advice", {"case": {"task": "generation"}, "measured": job})
    assert early.status_code == 422
    assert f"Job {job} is queued" in str(early.json())
    end_well(0.5)
    assert rita.get(f"/jobs/{job}").json()["outcome"]["distance"] == 0.5
    asked = {"case": {"task": "generation", "example_tokens": 64}, "measured": job}
    said = rita.post("/advice", asked).json()
    assert said["case"]["domain_distance"] == said["measured"]["distance"] == 0.5
    assert said["case"]["domain_measured"] is True
    law = make_text_set(people.workspace)
    reply = rita.post("/advice", {"case": {"task": "generation"}, "text_set": law.name})
    assert Job.objects.get(pk=reply.json()["measuring"]).payload["text_set"] == law.pk
    for wrong in ({"text": "x", "measured": job}, {"text_set": "nothing"}, {"measured": job + 9}):
        assert rita.post("/advice", {"case": {"task": "style"}} | wrong).status_code == 422


def test_the_api_advises_on_a_version_of_the_workspace(people: People) -> None:
    rita = caller(people.rita, people.workspace)
    base = make_version(people.workspace)
    said = rita.post("/advice", {"case": {"task": "style"}, "version": base.pk}).json()
    assert said["case"]["base"] == "demo"
    assert said["case"]["base_parameters"] > 10**8
