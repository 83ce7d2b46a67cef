"""A task that several approaches are tried on: one base, one set of questions. Holds no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.engine.config import METHODS, RunConfig, from_dict
from training.engine.config_answer import CITE, AnswerConfig, PromptConfig
from training.engine.config_compare import APPROACHES
from training.engine.documents import as_rows, read_documents
from training.engine.errors import ConfigError, DataError
from training.engine.prompting import conversation, normal
from training.engine.questions import Question, expect_gold, read_questions
from training.engine.rundir import Row, read_rows

FILES = ("questions", "examples", "documents", "general")
#: What an approach may set: sections of its stages.
SECTIONS = {
    "prompting": ("answer",),
    "rag": ("index", "answer"),
    "sft": ("sft", "answer"),
    "pretrain_sft": ("pretrain", "sft", "answer"),
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is read of a task, before any model is loaded.

    run: fields of every run's config. answer: the section of every answer run. own: for each
    approach what it sets beyond that.
    """

    name: str
    approaches: tuple[str, ...]
    run: dict[str, Any]
    answer: dict[str, Any]
    own: dict[str, dict[str, Any]]
    questions: list[Row]
    examples: list[Row]
    documents: str
    general: list[Row]

    @property
    def kind(self) -> str:
        return str(self.answer.get("task", "text"))

    @property
    def pool(self) -> list[Question]:
        found = read_questions(self.examples, self.kind, "example") if self.examples else []
        return [each for each in found if each.scored]

    def seen_before(self) -> int:
        """How many questions stand among the examples too, word for word."""
        known = {normal(each.text) for each in self.pool}
        asked = read_questions(self.questions, self.kind, "question")
        return sum(normal(each.text) in known for each in asked)

    def section(self, approach: str, name: str) -> dict[str, Any]:
        return dict(self.own.get(approach, {}).get(name, {}))

    def config(self, approach: str, method: str, **section: Any) -> RunConfig:
        """The config of a stage; `section` is laid over what the task says. Raises ConfigError."""
        if method == "answer":
            body = merged(self.answer, self.section(approach, "answer"), section)
            return from_dict(merged({"threads": 2}, self.run, {"method": method, "answer": body}))
        return from_dict(
            merged(self.run, self.section(approach, method), section, {"method": method})
        )

    def conversations(self, approach: str) -> list[Row]:
        """The examples as rows of `sft`: asked as the approach's questions will be."""
        if not self.pool:
            raise DataError("the task has no examples with an answer: there is nothing to train on")
        answer = self.config(approach, "answer", prompt={"examples": 0}).answer
        assert isinstance(answer, AnswerConfig)  # noqa: S101 - the method is answer
        return [
            {"id": each.id, "messages": conversation(answer.prompt, each)} for each in self.pool
        ]

    def rag_prompt(self) -> dict[str, Any]:
        """The template of answers from passages: the task's own, else with a line before it."""
        given = merged(self.answer, self.section("rag", "answer")).get("prompt", {})
        user = str(given.get("user", PromptConfig().user))
        return {} if "{passages}" in user else {"user": CITE + user}


def read_task(task: Mapping[str, Any], folder: Path | None = None) -> Task:
    """A task from its JSON; paths in it are relative to `folder`. Raises EngineError."""
    known = {"name", "approaches", "run", "answer", *FILES, *APPROACHES}
    unknown = sorted(set(task) - known)
    if unknown:
        raise ConfigError(
            f"the task has unknown fields: {', '.join(unknown)}; known: {', '.join(sorted(known))}"
        )
    approaches = tuple(task.get("approaches", APPROACHES))
    wrong = [each for each in approaches if each not in APPROACHES]
    if wrong or not approaches:
        raise ConfigError(f"approaches: {wrong or 'none'}; allowed: {', '.join(APPROACHES)}")
    run, answer = section_of(task, "run"), section_of(task, "answer")
    taken = sorted({"method", *METHODS} & set(run))
    if taken:
        raise ConfigError(f"run holds {', '.join(taken)}; name methods' settings per approach")
    own = {name: section_of(task, name) for name in APPROACHES}
    for name, sections in own.items():
        odd = sorted(set(sections) - set(SECTIONS[name]))
        if odd:
            raise ConfigError(
                f"{name} has {', '.join(odd)}; it may hold {', '.join(SECTIONS[name])}"
            )
    here = folder or Path()
    files = {name: task.get(name) for name in FILES}
    if not files["questions"]:
        raise ConfigError("questions is missing: the file that every approach is measured on")
    documents = files["documents"] or []
    documents = [documents] if isinstance(documents, str) else list(documents)
    found = Task(
        name=str(task.get("name", "task")),
        approaches=approaches,
        run=run,
        answer=answer,
        own=own,
        questions=read_rows(here / files["questions"]),
        examples=read_rows(here / files["examples"]) if files["examples"] else [],
        documents=as_rows(read_documents([here / each for each in documents])) if documents else "",
        general=read_rows(here / files["general"]) if files["general"] else [],
    )
    expect_gold(read_questions(found.questions, found.kind, "question"), found.kind)
    return found


def section_of(task: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = task.get(name, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{name} must be an object, not {type(value).__name__}")
    return value


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """One dict of several, the later ones over the earlier, section by section."""
    found: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            both = isinstance(value, Mapping) and isinstance(found.get(name), Mapping)
            found[name] = merged(found[name], value) if both else value
    return found
