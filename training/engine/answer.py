"""Method "answer": questions answered by a base or an adapter, and measured on gold answers.

Prompting, RAG and fine-tuned models go through this one method, so that they are measured alike
(docs/methods/answer.md). Free answers are decoded greedily; of labels the most probable is taken,
log P(label, end of turn | prompt), all labels of a question branches behind one prompt.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.engine import distributed
from training.engine.answer_metrics import quality, retrieval, speed
from training.engine.answer_scores import exact_match, field_counts, object_in, token_f1
from training.engine.answered import Answered
from training.engine.batching import Packing
from training.engine.config_answer import OWN_DOCUMENTS, AnswerConfig
from training.engine.control_tokens import special_tokens
from training.engine.data import Branch, Tree, response_tokens
from training.engine.documents import read_documents
from training.engine.dpo import ADAPTER
from training.engine.errors import ConfigError, DataError
from training.engine.generation import generate, text_of
from training.engine.logprobs import response_logps
from training.engine.memory import peak_mb
from training.engine.models import Base, load_base
from training.engine.passages import Asked, ask, citations, without_citations
from training.engine.preflight import announce, choose_packing, seed_everything
from training.engine.pretrain import nats_of
from training.engine.pretrain_data import encode_documents, general_rows
from training.engine.pretrain_metrics import figures
from training.engine.prompting import Examples, digest
from training.engine.questions import (
    EXAMPLES,
    Question,
    expect_gold,
    labels_of,
    read_questions,
)
from training.engine.retrieval import (
    Hit,
    IndexSettings,
    Retriever,
    advice,
    open_index,
    update_index,
)
from training.engine.rundir import Row, RunDir
from training.engine.stopping import raise_if_stopped


def train(run: RunDir) -> dict[str, Any]:
    """Answer every question of data.test; writes answers.jsonl. Returns the result."""
    config = run.config
    settings = config.answer
    assert settings is not None  # noqa: S101 - the config guarantees it
    if distributed.size() > 1:
        raise ConfigError("answer runs in one process; start it without torchrun")
    seed_everything(config)
    began_cpu = time.process_time()
    questions, pool = read_rows_of(run, settings)
    without = expect_gold(questions, settings.task)
    if without:
        run.events.warning(
            "no_gold_answer",
            f"{without} of {len(questions)} questions have no gold answer: they are answered and "
            "not scored",
        )
    answering = Answering(run, settings, questions, pool)
    announce(run, answering.base, total_steps=len(questions), rows=len(questions), trainable=0)
    answering.choose_packing(questions)

    run.events.write("phase", name="answer")
    done = Answered(run, [question.id for question in questions], settings.block)
    while len(done.rows) < len(questions):
        raise_if_stopped()
        block = questions[len(done.rows) :][: settings.block]
        started = time.monotonic()
        rows = answering.answers(block)
        done.add(rows, time.monotonic() - started)
        first = rows[0]
        run.events.write(
            "sample",
            step=len(done.rows),
            prompt_id=first["id"],
            prompt=[{"role": "user", "content": block[0].text}],
            text=first["answer"],
        )
        run.events.write("progress", step=len(done.rows), total_steps=len(questions))
    metrics, found = quality(done.rows, questions, settings.task, answering.labels)
    cut = {key: sum(bool(row["cut"][key]) for row in done.rows) for key in done.rows[0]["cut"]}
    if any(cut.values()):
        said = ", ".join(f"{key} in {count}" for key, count in cut.items() if count)
        run.events.warning(
            "cut", f"prompts that did not fit the window: left out or cut were {said} questions"
        )
    about: dict[str, Any] = {
        "task": settings.task,
        "labels": answering.labels,
        "prompt": {
            "name": settings.prompt.name,
            "version": settings.prompt.version,
            "sha256": digest(settings.prompt, pool),
        },
        "block": settings.block,
        "questions": len(questions),
        "without_gold": without,
        "cut": cut,
        "prompt_tokens": sum(row["prompt_tokens"] for row in done.rows),
        "answer_tokens": sum(row["answer_tokens"] for row in done.rows),
        "peak_mb": round(peak_mb(), 1),
        "cpu_s": round(time.process_time() - began_cpu, 2),
    }
    if answering.index is not None:
        measured, about["retrieval"] = retrieval(done.rows, questions)
        metrics |= measured
    metrics |= speed(done.timings)
    metrics["length/mean"] = about["answer_tokens"] / len(done.rows)
    if settings.general:
        run.events.write("phase", name="general")
        metrics |= answering.forgetting(about)
    run.events.metrics(len(done.rows), metrics)
    return {
        "steps": len(done.rows),
        "rows": len(done.rows),
        "metrics": metrics,
        "answers": run.name_of(done.path),
        "answer": about,
        **found,
    }


def read_rows_of(run: RunDir, settings: AnswerConfig) -> tuple[list[Question], list[Question]]:
    """(the questions, the examples that there are). Raises DataError."""
    rows = run.held_out_rows()
    if not rows:
        raise DataError(f"{run.config.data.test} is missing or empty: there are no questions")
    questions = read_questions(rows, settings.task, "question")
    there = (run.path / EXAMPLES).is_file()
    pool = read_questions(run.rows(EXAMPLES), settings.task, "example") if there else []
    return questions, pool


class Answering:
    """What answers: a base with its adapter, a template with its examples, and an index."""

    def __init__(
        self,
        run: RunDir,
        settings: AnswerConfig,
        questions: Sequence[Question],
        pool: Sequence[Question],
    ) -> None:
        """Raises EngineError for what cannot be loaded, before anything is answered."""
        self._run, self._settings = run, settings
        self.labels: list[str] = []
        if settings.task == "labels":
            self.labels = labels_of(settings.labels, questions, pool)
        self._examples = Examples(pool, settings.prompt, run.config.seed)
        self.index: Retriever | None = None
        if settings.index is not None:
            self.index = expect_chunks(settings, open_index(index_of(run, settings)))
            said = advice(self.index.settings, self.index.chunks)
            if said and settings.mode != "bm25":
                run.events.warning("foreign_script", said)
        run.events.write("phase", name="load")
        self.base: Base = load_base(run.base)
        if settings.adapter is not None:
            self.base.add_adapter(ADAPTER, run.config.adapter, init_from=settings.adapter)
        self._special = special_tokens(self.base.tokenizer)
        self._branches = tuple(Branch(response_tokens(self.base, each)) for each in self.labels)
        answer = max((len(each.tokens) for each in self._branches), default=settings.max_new_tokens)
        self._longest = run.config.data.max_prompt_length
        if self.base.positions is not None:
            self._longest = min(self._longest, self.base.positions - answer)
        if self._longest < 1:
            raise DataError(
                f"an answer may take {answer} tokens, and the base has {self.base.positions} "
                "positions for question and answer together; ask for shorter answers"
            )
        self._packing = Packing(run.config.row_budget, shared=False)

    def choose_packing(self, questions: Sequence[Question]) -> None:
        """Whether the labels of a question may share its prompt on this architecture."""
        if self.labels:
            trees = [self._tree(self._asked(question)[0]) for question in questions[:2]]
            self._packing = choose_packing(self._run, self.base, trees)

    def using(self) -> AbstractContextManager[Any]:
        return self.base.use(ADAPTER) if self._settings.adapter is not None else nullcontext()

    def answers(self, block: Sequence[Question]) -> list[Row]:
        """The rows of answers.jsonl for a block of questions."""
        asked = [self._asked(question) for question in block]
        with self.using():
            said = self._labelled(asked) if self.labels else self._generated(asked)
        return [
            {
                "id": question.id,
                **answer,
                "prompt_tokens": len(prompt.tokens),
                "cut": prompt.cut,
                "examples": list(prompt.examples),
                **self._found(answer["answer"], prompt, hits),
                "scores": self._scores(question, answer["answer"]),
            }
            for question, (prompt, hits), answer in zip(block, asked, said, strict=True)
        ]

    def _asked(self, question: Question) -> tuple[Asked, list[Hit]]:
        settings = self._settings
        hits: list[Hit] = []
        if self.index is not None:
            k = min(settings.k, len(self.index.chunks))
            hits = self.index.search(question.text, k, settings.mode)
        prompt = ask(
            self.base,
            settings.prompt,
            question,
            hits=hits,
            examples=self._examples.chosen(question),
            longest=self._longest,
            special=self._special,
        )
        return prompt, hits

    def _tree(self, prompt: Asked) -> Tree:
        return Tree(prompt.tokens, self._branches)

    def _labelled(self, asked: Sequence[tuple[Asked, list[Hit]]]) -> list[Row]:
        table = response_logps(self.base, [self._tree(each) for each, _ in asked], self._packing)
        return [
            {
                "answer": self.labels[int(logps.argmax())],
                "answer_tokens": 0,
                "logps": logps.tolist(),
            }
            for logps in table
        ]

    def _generated(self, asked: Sequence[tuple[Asked, list[Hit]]]) -> list[Row]:
        answers = generate(
            self.base,
            [prompt.tokens for prompt, _ in asked],
            max_new_tokens=self._settings.max_new_tokens,
            temperature=0.0,
            seed=self._run.config.seed,
        )
        return [
            {
                "answer": text_of(self.base, answer),
                "answer_tokens": len(answer.tokens),
                "finished": answer.finished,
            }
            for answer in answers
        ]

    def _found(self, answer: str, prompt: Asked, hits: Sequence[Hit]) -> Row:
        """What was shown and cited of an index; nothing without one."""
        if self.index is None:
            return {}
        return {
            "ranking": list(dict.fromkeys(hit.chunk.document for hit in hits)),
            "passages": [asdict(each) for each in prompt.passages],
            "citations": citations(answer, prompt.passages),
        }

    def _scores(self, question: Question, answer: str) -> Row | None:
        """How right an answer is; None where nobody says what is."""
        if not question.scored:
            return None
        if question.label is not None:
            return {"right": float(answer == question.label)}
        if question.fields is not None:
            said = object_in(answer)
            counts = field_counts(said, question.fields)
            total = counts["said"] + counts["gold"]
            return {
                "exact": float(counts["right"] == counts["said"] == counts["gold"]),
                "field_f1": 2.0 * counts["right"] / total,
                "parsed": float(said is not None),
                "fields": counts,
            }
        if self.index is not None:
            answer = without_citations(answer)
        return {
            "exact": exact_match(answer, question.answers),
            "f1": token_f1(answer, question.answers),
        }

    def forgetting(self, about: dict[str, Any]) -> dict[str, float]:
        """Perplexity of general text without and with the adapter; `about` gets its cost.

        Without an adapter the weights are the base's own, so that nothing changes.
        """
        began = time.process_time()
        source, rows = general_rows(self._run.path)
        longest = self._run.config.data.max_length
        if self.base.positions is not None:
            longest = min(longest, self.base.positions)
        documents = encode_documents(
            self.base, rows, longest, self._run.events, "general", ended=False
        )
        sides = {"general": documents}
        packing = Packing(self._run.config.row_budget, shared=False)
        before = nats_of(self.base, sides, packing)["general"]
        after = before
        if self._settings.adapter is not None:
            with self.using():
                after = nats_of(self.base, sides, packing)["general"]
        metrics, became = figures("general", documents, before, after)
        about["general"] = {
            "source": source,
            "documents": len(documents),
            "perplexity": became,
            "cpu_s": round(time.process_time() - began, 2),
        }
        return metrics


def index_of(run: RunDir, settings: AnswerConfig) -> Path:
    """The index's folder; one of the run's own documents is made where no attempt has yet."""
    if settings.index != OWN_DOCUMENTS:
        return Path(str(settings.index))
    made = run.path / "index"
    if not (made / "manifest.json").exists():
        run.events.write("phase", name="index")
        dense = settings.mode != "bm25"
        documents = read_documents([run.path / OWN_DOCUMENTS])
        update_index(made, documents, settings=IndexSettings(dense=dense))
    return made


def expect_chunks(settings: AnswerConfig, index: Retriever) -> Retriever:
    """Raise DataError for an index in which nothing can be found."""
    if not index.chunks:
        raise DataError(f"the index {settings.index} is empty: index documents first")
    if settings.mode != "bm25" and index.vectors is None:
        raise DataError(
            f"answer.mode is {settings.mode!r}, and the index {settings.index} holds no vectors; "
            "use bm25, or index without --sparse"
        )
    return index
