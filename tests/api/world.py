"""A workspace in which everything exists once, and callers with tokens; made by the services."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.test import Client

from annotate.models import (
    Assignment,
    Comparison,
    Flag,
    JudgeVersion,
    Project,
    PromptSet,
    Snapshot,
)
from annotate.services.flagging import flag_comparison
from annotate.services.freezing import freeze_snapshot
from annotate.services.ingest import import_comparisons, store_prompt_set
from annotate.services.projects import create_project
from annotate.services.serving import annotator_for, next_assignment
from rlhf_platform.accounts.models import ApiToken, User, Workspace
from rlhf_platform.accounts.secrets import make_api_token
from tests.factories import make_comparison
from tests.people import People
from training.models import ModelVersion, Round, Run, TextSet
from training.services.launching import launch_round
from training.services.machine_judging import judge_at
from training.services.text_rows import Document
from training.services.text_sets import store_text_set
from training.services.versions import base_version

BASE = "/api/v1"


class Caller:
    """A client that sends and reads JSON under one token (or none)."""

    def __init__(self, secret: str = "") -> None:
        self._client = Client(raise_request_exception=False)
        self._headers = {"Authorization": f"Bearer {secret}"} if secret else {}

    def send(self, method: str, address: str, body: Any = None) -> Any:
        content = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "application/json"
        return self._client.generic(
            method, f"{BASE}{address}", content, kind, headers=self._headers
        )

    def get(self, address: str, **query: Any) -> Any:
        return self._client.get(f"{BASE}{address}", data=query, headers=self._headers)

    def post(self, address: str, body: Any = None) -> Any:
        return self.send("POST", address, {} if body is None else body)

    def upload(self, address: str, **form: Any) -> Any:
        return self._client.post(f"{BASE}{address}", data=form, headers=self._headers)


def caller(user: User, workspace: Workspace) -> Caller:
    return Caller(make_api_token(user=user, workspace=workspace, name="test"))


@dataclass(frozen=True)
class World:
    people: People
    project: Project
    snapshot: Snapshot
    prompt_set: PromptSet
    base: ModelVersion
    round: Round
    run: Run
    assignment: Assignment
    flag: Flag
    text_set: TextSet
    judge: JudgeVersion
    token: ApiToken

    @property
    def alice(self) -> Caller:
        return caller(self.people.alice, self.people.workspace)

    @property
    def rita(self) -> Caller:
        return caller(self.people.rita, self.people.workspace)

    @property
    def bob(self) -> Caller:
        return caller(self.people.bob, self.people.workspace)

    @property
    def charlie(self) -> Caller:
        return caller(self.people.charlie, self.people.elsewhere)


def make_world(people: People, folder: Path) -> World:
    """Project "helpful" with a snapshot, a launched round, and one comparison leased to Bob."""
    project = create_project(
        workspace=people.workspace, name="Helpful", slug="helpful", guidelines="Be fair."
    )
    rows = [{"prompt": f"Q{n}?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(12)]
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    import_comparisons(project=project, path=file)
    snapshot = freeze_snapshot(project=project, test_fraction=0.4)
    base = base_version(workspace=people.workspace)
    fresh = store_prompt_set(
        workspace=people.workspace,
        conversations=[[{"role": "user", "content": "Fresh?"}]],
        name="fresh",
        use="fresh",
    )
    launched = launch_round(
        project=project, snapshot=snapshot, method="dpo", reference=base, fresh_prompts=fresh
    )
    make_comparison(project, prompt="What is red?")
    Comparison.objects.filter(slots=1).update(
        origin="old_new", origin_reference=f"round:{launched.pk}", propensity=0.25
    )
    bob = annotator_for(user=people.bob, workspace=people.workspace)
    assignment = next_assignment(project=project, annotator=bob)
    run = launched.runs.get()
    assert assignment is not None
    make_api_token(user=people.bob, workspace=people.workspace, name="of Bob")
    flag = flag_comparison(assignment=assignment, annotator=bob, kind="private")
    texts = [Document("", f"Document {n} says something.") for n in range(4)]
    text_set = store_text_set(workspace=people.workspace, documents=texts, name="texts")
    judge = judge_at(
        project=project, name="strict", rubric="Be strict.", url="https://example.org/v1", model="m"
    )
    token = ApiToken.objects.get()
    return World(
        people,
        project,
        snapshot,
        fresh,
        base,
        launched,
        run,
        assignment,
        flag,
        text_set,
        judge,
        token,
    )
