"""Section of config.json for answering questions that have gold answers; see `config`."""

from __future__ import annotations

from dataclasses import dataclass, field

from training.engine.config_trl import check

#: What an answer is: free text, one JSON object, or one of a list of labels.
TASKS = ("text", "json", "labels")
SELECT = ("first", "random", "bm25", "dense", "hybrid")
MODES = ("bm25", "dense", "hybrid")
LARGEST = 1000
#: What stands before the prompt's own text where passages are shown and the task says nothing else.
CITE = "Answer from the passages, and cite them as [n].\n\n{passages}\n\n"
#: As `answer.index`: rows in the run folder of which the run makes an index itself.
OWN_DOCUMENTS = "data/documents.jsonl"


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """A prompt template. Count `version` up when you change it; results state its digest too."""

    name: str = "question"
    """What people call it."""
    version: int = 1
    """Its version."""
    system: str = ""
    """The system message; none where it is empty."""
    user: str = "{question}"
    """The user's message: {question}, and {passages} with answer.index."""
    passage: str = "[{n}] {text}"
    """One passage: its number {n}, its {text}, and if you like its document's {title}."""
    examples: int = 0
    """Question and answer pairs of data/examples.jsonl that stand before the question as turns."""
    select: str = "bm25"
    """Which ones: the first, random (by the seed), or the most similar (bm25, dense, hybrid)."""

    def __post_init__(self) -> None:
        check(bool(self.name.strip()), "answer.prompt.name", self.name, "not empty")
        check(self.version >= 1, "answer.prompt.version", self.version, "1 or more")
        once = self.user.count("{question}")
        check(once == 1, "answer.prompt.user", self.user, "a text with {question} in it, once")
        numbered = "{n}" in self.passage and "{text}" in self.passage
        check(numbered, "answer.prompt.passage", self.passage, "a text with {n} and {text} in it")
        check(
            0 <= self.examples <= LARGEST,
            "answer.prompt.examples",
            self.examples,
            f"0 to {LARGEST}",
        )
        check(self.select in SELECT, "answer.prompt.select", self.select, ", ".join(SELECT))


@dataclass(frozen=True, kw_only=True)
class AnswerConfig:
    """Questions answered by a base, with an adapter or without, and measured on gold answers."""

    task: str = "text"
    """text, json (fields are extracted), or labels (the most probable of a list)."""
    labels: tuple[str, ...] = ()
    """What may be answered under labels; those of data/examples.jsonl where the list is empty."""
    adapter: str | None = None
    """Folder of the adapter that answers; the bare base where none is given."""
    prompt: PromptConfig = field(default_factory=PromptConfig)
    index: str | None = None
    """Folder of an index (made by `index`) whose passages go into the prompt (RAG), or
    data/documents.jsonl: the run makes one of its own documents."""
    k: int = 5
    """Passages that are looked for."""
    mode: str = "hybrid"
    """What ranks them: bm25, dense or hybrid."""
    max_new_tokens: int = 64
    """Longest answer in tokens."""
    block: int = 8
    """Questions answered side by side, and kept together; 1 gives the latency of a single one."""
    general: bool = False
    """Measure perplexity of general text (data/general.jsonl, or the enclosed) without and with the
    adapter: what was forgotten."""

    def __post_init__(self) -> None:
        check(self.task in TASKS, "answer.task", self.task, ", ".join(TASKS))
        if self.task != "labels":
            check(not self.labels, "answer.labels", self.labels, "none unless task is labels")
        distinct = len(set(self.labels)) == len(self.labels) and all(map(str.strip, self.labels))
        check(distinct, "answer.labels", self.labels, "distinct and not empty")
        check(len(self.labels) != 1, "answer.labels", self.labels, "two or more, or none")
        check(1 <= self.k <= LARGEST, "answer.k", self.k, f"1 to {LARGEST}")
        check(self.mode in MODES, "answer.mode", self.mode, ", ".join(MODES))
        tokens = self.max_new_tokens
        check(1 <= tokens <= 100_000, "answer.max_new_tokens", tokens, "1 to 100000")
        check(1 <= self.block <= LARGEST, "answer.block", self.block, f"1 to {LARGEST}")
        shows = self.prompt.user.count("{passages}")
        wanted = "with {passages} in it, once" if self.index else "without {passages}, or an index"
        good = shows == (1 if self.index else 0)
        check(good, "answer.prompt.user", self.prompt.user, wanted)
