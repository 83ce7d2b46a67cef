"""`manage.py judge`: a real engine process and a server on this machine, into the database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from annotate.models import Calibration, JudgeVersion, MachineJudgment, Project
from annotate.services.freezing import freeze_snapshot
from tests.engine.chat_server import ChatServer, chatting, longer, prefers
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People
from training.services.engine_rows import preference_lines

JUDGED, ALONE = 24, 6


@pytest.fixture
def project(people: People, settings: Any, tmp_path: Path) -> Project:
    """Whose people prefer the longer answer, which is A."""
    settings.DATA_DIR = tmp_path
    settings.JUDGE_CALIBRATION_ROWS = 20
    project = make_project(people.workspace)
    someone = make_annotator(people.workspace, name="someone")
    for number in range(JUDGED + ALONE):
        comparison = make_comparison(
            project, prompt=f"Question {number}?", a=f"A long answer {number}.", b=f"No {number}."
        )
        if number < JUDGED:
            make_judgment(comparison, someone)
    return project


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chatting(prefers(longer)) as server:
        yield server


def judge(*arguments: str) -> str:
    out = StringIO()
    command = ["--workspace", "lab", "--project", "helpful", "--name", "strict", *arguments]
    call_command("judge", *command, stdout=out)
    return out.getvalue()


def at(server: ChatServer) -> tuple[str, ...]:
    return ("--url", server.url, "--model", "m", "--retries", "0")


def test_from_a_server_to_a_snapshot(
    project: Project,
    server: ChatServer,
    people: People,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "sk-ours")
    out = judge(*at(server), "--by-people")
    assert f"stored {JUDGED} judgments" in out
    assert "agreement 1.000" in out
    assert "calibration: not accepted" in out
    assert server.headers[0]["Authorization"] == "Bearer sk-ours"
    assert "sk-ours" not in out + json.dumps(JudgeVersion.objects.get().settings)
    out = judge()  # the rest, by the version that is known
    assert f"stored {ALONE} judgments" in out
    assert len(server.requests) == 2 * (JUDGED + ALONE)
    with pytest.raises(CommandError, match="has judged all there is"):
        judge()
    with pytest.raises(CommandError, match="only an admin"):
        judge("--accept-as", "rita@example.org", "--reason", "It agrees.")
    with pytest.raises(CommandError, match="say why"):
        judge("--accept-as", "alice@example.org")
    out = judge("--accept-as", "alice@example.org", "--reason", "It agrees.")
    assert "accepted on 24 comparisons" in out
    assert Calibration.objects.get().accepted_by == people.alice
    assert not list((tmp_path / "judging").iterdir())

    found = JudgeVersion.objects.get()
    snapshot = freeze_snapshot(project=project, test_fraction=0.3, judge=found)
    rows = [json.loads(line) for line in preference_lines(snapshot=snapshot, ties=True)]
    machine = [row for row in rows if "judged_by" in row]
    assert machine
    assert all((row["weight"], row["margin"]) == (1.0, 0.333333) for row in machine)


def test_a_server_that_goes_down_costs_no_question_twice(
    project: Project, server: ChatServer
) -> None:
    answered = server.say
    server.say = lambda text: answered(text) if len(server.requests) <= 5 else (503, b"", {})
    with pytest.raises(CommandError, match="status 503"):
        judge(*at(server))
    assert not MachineJudgment.objects.exists()
    server.say = answered
    judge()
    contents = [body["messages"][0]["content"] for body in server.requests]
    assert len(contents) == 2 * (JUDGED + ALONE) + 1
    assert len(set(contents)) == 2 * (JUDGED + ALONE)
    assert MachineJudgment.objects.count() == JUDGED + ALONE


def test_what_cannot_be_a_judge_is_refused(project: Project) -> None:
    with pytest.raises(CommandError, match=r"judge\.url is 'http://example.org/v1'"):
        judge("--url", "http://example.org/v1", "--model", "m")
    with pytest.raises(CommandError, match="holds no adapter"):
        judge("--base", "demo", "--adapter", "nowhere")
    with pytest.raises(CommandError, match="there is no judge 'strict'"):
        judge()
    assert not JudgeVersion.objects.exists()
