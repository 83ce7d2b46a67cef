"""`manage.py sample`: the cold start from the command line."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from annotate.services.ingest import store_prompt_set
from tests.factories import make_project
from tests.people import People
from training.models import Job, Run


@pytest.fixture
def asked(people: People) -> list[str]:
    make_project(people.workspace)
    store_prompt_set(
        workspace=people.workspace,
        conversations=[[{"role": "user", "content": "Why?"}]],
        name="fresh",
        use="fresh",
    )
    return ["--prompts", "fresh", "--project", "helpful", "--workspace", "lab"]


def test_it_queues_a_run_of_the_base(asked: list[str]) -> None:
    out = StringIO()
    call_command("sample", "--version", "demo", *asked, stdout=out)
    run = Run.objects.get()
    assert (run.method, run.job.queue, run.job.state) == ("sample", "sampling", Job.State.QUEUED)
    assert run.config["sample"]["samples_per_prompt"] == 2
    assert "manage.py worker" in out.getvalue()


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("/no/such", "there is no base model at /no/such"),
        ("nonsense", "'nonsense' is not a base model"),
        ("77", "77"),
    ],
)
def test_a_version_that_is_not_there_is_named(asked: list[str], version: str, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        call_command("sample", "--version", version, *asked)
    assert not Run.objects.exists()


def test_an_unknown_prompt_set_is_named(asked: list[str]) -> None:
    asked[1] = "other"
    with pytest.raises(CommandError, match="no prompt set 'other'"):
        call_command("sample", "--version", "demo", *asked)
