"""What is wrong with a run's rows, counted with examples before anything is trained on them.

What a text alone can tell: no tokenizer, no torch, so a page may ask before a launch. What depends
on tokens is in `token_inspection`. A finding of level "refuse" means that nothing could be learnt.

Rows are reported, never changed: a pair of identical responses or a row of probability 0.5 stays in
the run, where its gradient is zero, so that what is trained is what the snapshot holds.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

#: Row ids that a finding names.
EXAMPLES = 3
#: Below so many pairs of unequal length the length bias is not judged.
ENOUGH_PAIRS = 30
#: A class with fewer training rows is called rare.
ENOUGH_OF_A_CLASS = 8
#: A correlation below this is called small (Cohen 1988, section 3.2).
SMALL_CORRELATION = 0.1

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One check: how many rows it is about, which ones, what follows."""

    code: str
    #: "ok", "warn" or "refuse".
    level: str
    count: int
    of: int
    message: str
    todo: str = ""
    #: Up to three row ids.
    examples: tuple[str, ...] = ()
    values: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"examples": list(self.examples)}


@dataclass(frozen=True)
class Pair:
    """A preference row reduced to what the checks compare."""

    id: str
    prompt: str
    chosen: str
    rejected: str
    probability: float
    chosen_length: int
    rejected_length: int


def word_length(text: str) -> int:
    return len(text.split())


def as_pairs(rows: Iterable[Row]) -> list[Pair]:
    """Rows that are preferences; what is none of them is refused by whoever trains on it."""
    found = []
    for number, row in enumerate(rows, start=1):
        try:
            chosen, rejected = (
                "".join(str(m["content"]) for m in row[side]) for side in ("chosen", "rejected")
            )
            # by its messages and not by prompt_id: an id may be missing, or given to two prompts
            prompt = digest_of(row["prompt"])
        except (KeyError, TypeError):
            continue
        probability = row.get("probability", 1.0)
        found.append(
            Pair(
                id=str(row.get("id", number)),
                prompt=prompt,
                chosen=chosen,
                rejected=rejected,
                probability=probability if isinstance(probability, int | float) else 1.0,
                chosen_length=word_length(chosen),
                rejected_length=word_length(rejected),
            )
        )
    return found


def digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def inspect_pairs(
    train: Iterable[Row],
    test: Iterable[Row] = (),
    *,
    lengths: Mapping[str, tuple[int, int]] | None = None,
) -> list[Finding]:
    """Every check of preference rows that needs no tokenizer.

    lengths: tokens of (chosen, rejected) by row id; words are counted where it is not given.
    """
    pairs, held_out = as_pairs(train), as_pairs(test)
    return [
        empty(pairs),
        identical(pairs),
        undecided(pairs),
        duplicate_pairs(pairs),
        repeated_prompts({pair.id: pair.prompt for pair in pairs}),
        leaked(pairs, held_out),
        contradictions(pairs),
        cycles(pairs),
        length_bias(pairs, lengths),
    ]


def judged(
    code: str, ids: Sequence[str], of: int, message: str, todo: str, *, level: str = "warn"
) -> Finding:
    """A finding that is ok where no row is named."""
    return Finding(
        code=code,
        level=level if ids else "ok",
        count=len(ids),
        of=of,
        message=message,
        todo=todo if ids and level != "ok" else "",
        examples=tuple(ids[:EXAMPLES]),
    )


def fatal(found: Sequence[str], of: int) -> str:
    """A flaw of every row leaves nothing to learn."""
    return "refuse" if of and len(found) == of else "warn"


def empty(pairs: Sequence[Pair]) -> Finding:
    both = [p.id for p in pairs if not p.chosen.strip() and not p.rejected.strip()]
    one = [p.id for p in pairs if not p.chosen.strip() or not p.rejected.strip()]
    return judged(
        "empty",
        one,
        len(pairs),
        f"pairs with an empty response ({len(both)} with two)",
        "An empty answer is taken as one that ends at once. Where it stands for a failed "
        "generation, leave the row out.",
        level=fatal(both, len(pairs)),
    )


def identical(pairs: Sequence[Pair]) -> Finding:
    ids = [p.id for p in pairs if p.chosen == p.rejected]
    return judged(
        "identical",
        ids,
        len(pairs),
        "pairs whose two responses are the same text",
        "They teach nothing (their gradient is zero) and take up room in their batch: leave them "
        "out.",
        level=fatal(ids, len(pairs)),
    )


def undecided(pairs: Sequence[Pair]) -> Finding:
    ids = [p.id for p in pairs if p.probability == 0.5]
    return judged(
        "undecided",
        ids,
        len(pairs),
        "rows whose probability is 0.5",
        "They pull the margin of their pair to 0. That is right for ties; where nobody judged "
        "the pair, leave it out.",
        level=fatal(ids, len(pairs)),
    )


def duplicate_pairs(pairs: Sequence[Pair]) -> Finding:
    seen: set[tuple[str, str, str]] = set()
    again = []
    for pair in pairs:
        key = (pair.prompt, pair.chosen, pair.rejected)
        if key in seen:
            again.append(pair.id)
        seen.add(key)
    return judged(
        "duplicate_pairs",
        again,
        len(pairs),
        "training rows that repeat an earlier one exactly",
        "Each counts as another vote. Where they are copies of one judgment, leave them out.",
    )


def repeated_prompts(prompts: Mapping[str, str]) -> Finding:
    """prompts: what is asked, by row id."""
    counts = Counter(prompts.values())
    ids = [name for name, prompt in prompts.items() if counts[prompt] > 1]
    return judged(
        "repeated_prompts",
        ids,
        len(prompts),
        f"rows that share their prompt with another ({len(counts)} different prompts)",
        "",
        level="ok",
    )


def leaked(pairs: Sequence[Pair], held_out: Sequence[Pair]) -> Finding:
    prompts = {pair.prompt for pair in pairs}
    exact = {(pair.prompt, pair.chosen, pair.rejected) for pair in pairs}
    ids = [pair.id for pair in held_out if pair.prompt in prompts]
    same = sum((pair.prompt, pair.chosen, pair.rejected) in exact for pair in held_out)
    return judged(
        "leaked",
        ids,
        len(held_out),
        f"held-out rows whose prompt is trained on too ({same} as the very same pair)",
        "What is measured on them is not held out: split by prompt, as a snapshot does.",
    )


def orders(pairs: Sequence[Pair]) -> dict[str, Counter[tuple[str, str]]]:
    """How often each (better, worse) was said, by prompt; a pair of equal texts says nothing."""
    found: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for pair in pairs:
        if pair.chosen == pair.rejected or pair.probability == 0.5:
            continue
        better, worse = pair.chosen, pair.rejected
        if pair.probability < 0.5:
            better, worse = worse, better
        found[pair.prompt][better, worse] += 1
    return found


def contradictions(pairs: Sequence[Pair]) -> Finding:
    said = orders(pairs)
    ids = [
        pair.id
        for pair in pairs
        if (pair.chosen, pair.rejected) in said[pair.prompt]
        and (pair.rejected, pair.chosen) in said[pair.prompt]
    ]
    return judged(
        "contradictions",
        ids,
        len(pairs),
        "rows whose two responses another row puts in the opposite order",
        "People disagree there: aggregate the judgments into one row with a probability.",
    )


def cycles(pairs: Sequence[Pair]) -> Finding:
    """Rows on a cycle A > B > C > A of one prompt, contradictions settled by majority first."""
    parts = {
        prompt: strongly_connected(
            (better, worse) for (better, worse), n in said.items() if n > said[worse, better]
        )
        for prompt, said in orders(pairs).items()
    }
    ids = [
        pair.id
        for pair in pairs
        if pair.chosen != pair.rejected
        and pair.chosen in (part := parts.get(pair.prompt, {}))
        and part[pair.chosen] == part.get(pair.rejected)
    ]
    return judged(
        "cycles",
        ids,
        len(pairs),
        "rows on a cycle (A better than B, B than C, C than A)",
        "No score can rank them all: look at these prompts, or let more people judge them.",
    )


def strongly_connected(edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """The number of the strongly connected part that each node is in; lone nodes are left out.

    Tarjan 1972, without recursion: a prompt may have thousands of responses.
    """
    after: dict[str, list[str]] = defaultdict(list)
    for start, end in edges:
        after[start].append(end)
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    waiting: set[str] = set()
    parts: dict[str, int] = {}
    for root in list(after):
        if root in number:
            continue
        work = [(root, iter(after[root]))]
        number[root] = low[root] = len(number)
        stack.append(root)
        waiting.add(root)
        while work:
            node, rest = work[-1]
            for other in rest:
                if other not in number:
                    number[other] = low[other] = len(number)
                    stack.append(other)
                    waiting.add(other)
                    work.append((other, iter(after.get(other, ()))))
                    break
                if other in waiting:
                    low[node] = min(low[node], number[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    part: list[str] = []
                    while not part or part[-1] != node:
                        part.append(stack.pop())
                        waiting.discard(part[-1])
                    if len(part) > 1:
                        parts |= dict.fromkeys(part, number[node])
    return parts


def length_bias(
    pairs: Sequence[Pair], lengths: Mapping[str, tuple[int, int]] | None = None
) -> Finding:
    """Whether the chosen response tends to be the longer one.

    The correlation is Pearson's over all responses, of being chosen (1 or -1) with the length
    within its pair: Σd / √(n Σd²) for differences d. Its interval resamples prompts.
    """
    unit = "words" if lengths is None else "tokens"
    known = {p.id: (p.chosen_length, p.rejected_length) for p in pairs} | dict(lengths or {})
    counted = [p for p in pairs if p.id in known and p.chosen != p.rejected]
    differences = [float(known[p.id][0] - known[p.id][1]) for p in counted]
    unequal = [d for d in differences if d]
    if not unequal:
        return Finding("length_bias", "ok", 0, len(pairs), "pairs of unequal length: none to judge")
    from training.engine.intervals import clustered_correlation

    value, low, high = clustered_correlation(differences, [p.prompt for p in counted])
    longer = [p.id for p, d in zip(counted, differences, strict=True) if d > 0]
    mean = sum(differences) / len(differences)
    judge = len(unequal) >= ENOUGH_PAIRS
    if low is None or high is None:
        apart, between, ends = False, "no interval: one prompt", {}
    else:
        apart, between = low > 0.0 or high < 0.0, f"{low:.2f} to {high:.2f}"
        ends = {"correlation_low": low, "correlation_high": high}
    biased = judge and abs(value) >= SMALL_CORRELATION and apart
    more = "longer" if mean >= 0 else "shorter"
    few = "" if judge else f"; too few to judge (needs {ENOUGH_PAIRS})"
    return Finding(
        code="length_bias",
        level="warn" if biased else "ok",
        count=len(longer),
        of=len(unequal),
        message=f"pairs of unequal length whose chosen response is the longer one; on average it "
        f"is {abs(mean):.1f} {unit} {more}, correlation {value:.2f} ({between}){few}",
        todo="The model may learn length instead of quality: compare lengths of the answers "
        "before and after, and collect pairs of equal length."
        if biased
        else "",
        examples=tuple(longer[:EXAMPLES]) if biased else (),
        values={
            "mean_difference": mean,
            "share_longer": len(longer) / len(unequal),
            "correlation": value,
            **ends,
        },
    )


def inspect_conversations(rows: Sequence[Row]) -> list[Finding]:
    """The checks of fine-tuning rows that need no tokenizer."""
    texts = {str(row.get("id", n)): row.get("messages") for n, row in enumerate(rows, start=1)}
    blank = [
        name
        for name, messages in texts.items()
        if isinstance(messages, list)
        and any(
            isinstance(m, dict)
            and m.get("role") == "assistant"
            and not str(m.get("content", "")).strip()
            for m in messages
        )
    ]
    seen: set[str] = set()
    again = []
    for name, messages in texts.items():
        key = digest_of(messages)
        if key in seen:
            again.append(name)
        seen.add(key)
    return [
        judged(
            "empty",
            blank,
            len(rows),
            "conversations with an empty answer",
            "The model learns to answer nothing there: leave them out.",
            level=fatal(blank, len(rows)),
        ),
        judged(
            "duplicate_conversations",
            again,
            len(rows),
            "conversations that repeat an earlier one exactly",
            "Each is learnt as often as it stands there: leave copies out.",
        ),
    ]


def inspect_labelled(train: Sequence[Row], test: Sequence[Row] = ()) -> list[Finding]:
    """The checks of texts with labels that need no tokenizer."""

    def read(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
        """(id, what tells its text from others, label) of every row."""
        return [
            (
                str(row.get("id", number)),
                digest_of(row.get("text", row.get("messages"))),
                str(row.get("label")),
            )
            for number, row in enumerate(rows, start=1)
        ]

    rows, held_out = read(train), read(test)
    labels_of: dict[str, set[str]] = defaultdict(set)
    again = []
    for name, text, label in rows:
        if label in labels_of[text]:
            again.append(name)
        labels_of[text].add(label)
    known = {(text, label) for _, text, label in rows}
    counts = Counter(label for _, _, label in rows)
    same = sum((text, label) in known for _, text, label in held_out)
    rare = [name for name, _, label in rows if counts[label] < ENOUGH_OF_A_CLASS]
    few = sum(count < ENOUGH_OF_A_CLASS for count in counts.values())
    return [
        judged(
            "duplicate_texts",
            again,
            len(rows),
            "training rows that repeat an earlier one exactly",
            "Each counts as often as it stands there: leave copies out.",
        ),
        judged(
            "contradictions",
            [name for name, text, _ in rows if len(labels_of[text]) > 1],
            len(rows),
            "training rows whose text another row gives another label",
            "No classifier can be right on both: settle them, or leave them out.",
        ),
        judged(
            "leaked",
            [name for name, text, _ in held_out if text in labels_of],
            len(held_out),
            f"held-out rows whose text is trained on too ({same} with the same label)",
            "What is measured on them is not held out: leave them out of one of the two.",
        ),
        judged(
            "rare_classes",
            rare,
            len(rows),
            f"training rows are of classes with fewer than {ENOUGH_OF_A_CLASS} rows "
            f"({few} of {len(counts)} classes)",
            "Little can be learnt of such a class, and its recall will be a guess: add rows, merge "
            "classes, or set classify.class_weights to balanced.",
        ),
    ]


def inspect_prompts(rows: Sequence[Row]) -> list[Finding]:
    """The check of prompts that needs no tokenizer."""
    prompts = {str(r.get("id", n)): digest_of(r.get("prompt")) for n, r in enumerate(rows, 1)}
    return [repeated_prompts(prompts)]


def refusal(findings: Iterable[Finding]) -> str:
    """Why the rows cannot be trained on; empty where they can."""
    bad = [finding for finding in findings if finding.level == "refuse"]
    return "; ".join(f"{f.count} of {f.of} {f.message}. {f.todo}" for f in bad)
