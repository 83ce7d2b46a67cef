"""One run outside a round: refused before a job exists, launched once, and worked off for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from annotate.models import Project
from annotate.services.labels import labels_from_text
from annotate.services.projects import create_project
from annotate.services.serving import annotator_for
from annotate.services.texts import import_texts
from rlhf_platform.accounts.models import Workspace
from tests.annotate.services.test_labels import say_of
from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_snapshot, make_version
from training.errors import CannotLaunch, LaunchKeyReused
from training.models import Job, Run, TextSet
from training.services.folders import data_lines
from training.services.launching_runs import launch_run
from training.services.text_rows import Document
from training.services.text_sets import store_text_set
from training.services.versions import base_version

pytestmark = pytest.mark.django_db
QUICK = {"optim": {"batch_size": 4, "max_steps": 2}}


def make_text_set(workspace: Workspace, *, documents: int = 6) -> TextSet:
    texts = [Document("", f"Words of document {n} go on and on.") for n in range(documents)]
    return store_text_set(workspace=workspace, documents=texts, name="law")


def make_quiz(workspace: Workspace, *, questions: int = 8) -> TextSet:
    """Questions of which half are asked; the documents of `make_text_set` hold the answers."""
    asked = [
        Document("", f"Which document is number {n}?",
                 {"id": f"q{n}", "answers": [f"Document {n}"], "documents": [f"{n % 6}"]})
        for n in range(questions)
    ]  # fmt: skip
    return store_text_set(workspace=workspace, documents=asked, name="quiz", kind="questions")


def make_labelled(people: People, folder: Path, *, texts: int = 24) -> Project:
    project = create_project(
        workspace=people.workspace, name="Spam", slug="spam", kind="labels",
        labels=labels_from_text("ham\nspam"),
    )  # fmt: skip
    said = {f"message {n}": "spam" if n % 2 else "ham" for n in range(texts)}
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in said))
    import_texts(project=project, path=file)
    say_of(project, annotator_for(user=people.bob, workspace=people.workspace), said)
    return project


def test_the_same_key_launches_one_run(people: People) -> None:
    asked: dict[str, Any] = {
        "workspace": people.workspace,
        "method": "pretrain",
        "version": base_version(workspace=people.workspace),
        "text_set": make_text_set(people.workspace),
        "launch_key": "k",
    }
    first = launch_run(**asked)
    assert launch_run(**asked) == first
    assert (Run.objects.count(), Job.objects.count()) == (1, 1)
    with pytest.raises(LaunchKeyReused, match=f"run {first.pk}"):
        launch_run(**asked, config={"seed": 7})
    assert launch_run(**{**asked, "launch_key": ""}) != first


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "dpo"}, "run in a round"),
        ({"text_set": None}, "needs a text set"),
        ({"snapshot": "compared"}, "reads no snapshot"),
        ({"method": "sft", "text_set": None}, "needs a snapshot"),
        ({"method": "classify", "text_set": None, "snapshot": "compared"}, "snapshot of labels"),
        ({"tuning": "half"}, "tuning 'half' is none of lora, qlora, full"),
        ({"version": "reward"}, "is a reward model"),
        ({"version": "policy", "tuning": "full"}, "merge it first"),
        ({"version": "policy", "tuning": "lora"}, "choose tuning qlora"),
        ({"version": "foreign"}, "another workspace"),
        ({"config": {"method": "sft"}}, "method is set by the method"),
        ({"config": {"base": {"source": "/etc"}}}, "dtype and double_quant alone"),
        ({"config": {"adapter": {"init_from": "/etc"}}}, "init_from is set by the version"),
        ({"config": {"optim": {"lr": 7}}}, "optim.lr"),
        ({"config": {"nonsense": 1}}, "unknown fields: nonsense"),
        ({"method": "answer"}, "holds documents; answer needs questions"),
        ({"method": "answer", "text_set": "quiz", "documents": "quiz"}, "what is looked up in are"),
        ({"method": "answer", "text_set": "quiz", "version": "reward"}, "writes text"),
        ({"documents": "law"}, "reads no documents"),
        ({"method": "answer", "text_set": "quiz", "config": {"answer": 7}}, "must be an object"),
        ({"method": "compare", "text_set": "quiz", "version": "policy"}, "tries every approach"),
        ({"config": {"pretrain": {"base": "/etc"}}}, "base is set by the version"),
        (
            {"method": "answer", "text_set": "quiz", "config": {"answer": {"index": "/etc"}}},
            "index is set by",
        ),
        (
            {
                "method": "compare",
                "text_set": "quiz",
                "config": {"compare": {"sft": {"sft": {"adapter": {"init_from": "/etc"}}}}},
            },
            "init_from is set by",
        ),
        ({"method": "evaluate", "text_set": None, "snapshot": "compared"}, "has no adapter"),
    ],
)
def test_what_cannot_be_is_refused(people: People, change: dict[str, Any], words: str) -> None:
    workspace = people.workspace
    things: dict[str, Any] = {
        "compared": make_snapshot(make_project(workspace)),
        "reward": make_version(workspace, "scores", kind="reward"),
        "policy": make_version(workspace, "answers", kind="policy"),
        "foreign": base_version(workspace=people.elsewhere),
        "quiz": make_quiz(workspace),
        "law": make_text_set(workspace),
    }
    named = {
        name: things[value] if isinstance(value, str) and value in things else value
        for name, value in change.items()
    }
    asked: dict[str, Any] = {
        "workspace": workspace,
        "method": "pretrain",
        "version": base_version(workspace=workspace),
        "text_set": make_text_set(workspace),
        **named,
    }
    with pytest.raises(CannotLaunch, match=words):
        launch_run(**asked)
    assert not Job.objects.exists()


def test_what_is_compared_follows_from_what_is_there(people: People) -> None:
    asked: dict[str, Any] = {
        "workspace": people.workspace,
        "method": "compare",
        "version": base_version(workspace=people.workspace),
        "text_set": make_quiz(people.workspace),
    }
    without = launch_run(**asked)
    assert without.config["compare"]["approaches"] == ["prompting", "sft"]
    documents = make_text_set(people.workspace)
    run = launch_run(**asked, documents=documents)
    assert run.config["compare"]["approaches"] == ["prompting", "rag", "sft", "pretrain_sft"]
    lines = data_lines(run)
    assert {name: len(rows) for name, rows in lines.items()} == {
        "examples": 4, "test": 4, "documents": 6,
    }  # fmt: skip
    few = launch_run(**asked, config={"compare": {"approaches": ["prompting"]}})
    assert few.config["compare"]["approaches"] == ["prompting"]


def test_an_answer_from_documents_shows_passages(people: People) -> None:
    run = launch_run(
        workspace=people.workspace, method="answer", text_set=make_quiz(people.workspace),
        version=base_version(workspace=people.workspace),
        documents=make_text_set(people.workspace),
        config={"answer": {"prompt": {"system": "Be brief."}}},
    )  # fmt: skip
    section = run.config["answer"]
    assert (section["task"], section["index"]) == ("text", "data/documents.jsonl")
    assert "{passages}" in section["prompt"]["user"]
    assert section["prompt"]["system"] == "Be brief."


def test_labelled_texts_teach_without_annotators(people: People) -> None:
    texts = [Document("", f"message {n}", {"label": "ab"[n % 2]}) for n in range(10)]
    run = launch_run(
        workspace=people.workspace,
        method="classify",
        version=base_version(workspace=people.workspace),
        text_set=store_text_set(
            workspace=people.workspace, documents=texts, name="mail", kind="labelled"
        ),
    )
    lines = data_lines(run)
    assert (len(lines["train"]), len(lines["test"])) == (8, 2)
    assert json.loads(lines["train"][0])["label"] in "ab"
