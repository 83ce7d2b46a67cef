"""Task probes: short beginnings with a known end, of which the model sees the choices one by one.

The answer that a model gives is the choice of the highest mean log-probability per token (the
token-length normalisation of Gao 2021, "Multiple Choice Normalization in LM Evaluation";
lm-evaluation-harness's `acc_norm` does the same per character). Nothing is generated, so nothing is
drawn. They are plain text, and no turns: docs/methods/evaluate.md says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.engine.batching import Packing
from training.engine.data import Branch, Tree
from training.engine.errors import DataError
from training.engine.logprobs import response_logps
from training.engine.models import Base
from training.engine.pretrain_data import lead_of
from training.engine.rundir import EventWriter, Row, is_text, read_rows

#: English, written for this purpose: ten questions of each of five kinds, with four choices each.
ENCLOSED = Path(__file__).with_name("probes.jsonl")
#: A run folder's own, which stand in for them.
PROBES_FILE = "data/probes.jsonl"
#: Questions that are packed at once: their masks are held together.
AT_ONCE = 64


@dataclass(frozen=True)
class Probe:
    """The beginning of a sentence, and how it may go on."""

    id: str
    kind: str
    prompt: str
    choices: tuple[str, ...]
    #: Index of the right choice.
    answer: int


def known_probes(folder: Path) -> tuple[str, list[Probe]]:
    """(where they are from, probes) of a run: its own, or the enclosed ones. Raises DataError."""
    path = folder / PROBES_FILE
    source, rows = (PROBES_FILE, path) if path.is_file() else ("enclosed", ENCLOSED)
    return source, [
        probe_of(row, f"probe row {n}") for n, row in enumerate(read_rows(rows), start=1)
    ]


def probe_of(row: Row, where: str) -> Probe:
    """Raises DataError for a row that is no question with different choices."""
    where = f"{where} ({row.get('id', 'no id')})"
    prompt, kind, choices = row.get("prompt"), row.get("kind", "all"), row.get("choices")
    if not is_text(prompt) or not prompt.strip() or not is_text(kind):
        raise DataError(f"{where}: prompt (and kind, where given) must be a text")
    texts = isinstance(choices, list) and all(is_text(c) and c.strip() for c in choices)
    if not isinstance(choices, list) or not texts or not 2 <= len(set(choices)) == len(choices):
        raise DataError(f"{where}: choices must be a list of two or more different texts")
    answer = row.get("answer")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise DataError(
            f"{where}: answer is {answer!r}, not the index of a choice: 0 to {len(choices) - 1}"
        )
    return Probe(str(row.get("id", where)), kind, prompt, tuple(choices), answer)


def encode_probes(
    base: Base, probes: Sequence[Probe], events: EventWriter
) -> tuple[list[Probe], list[Tree]]:
    """The probes that the base has positions for, each as its prompt with a branch per choice.

    Raises DataError where none is left, and for a choice that the tokenizer makes nothing of.
    """
    both = [(probe, probe_tree(base, probe)) for probe in probes]
    for probe, tree in both:
        if not all(branch.tokens for branch in tree.branches):
            raise DataError(f"probe {probe.id}: the base's tokenizer makes nothing of a choice")
    kept = [(probe, tree) for probe, tree in both if fits(base, tree)]
    if len(kept) < len(both):
        events.warning(
            "probes_too_long",
            f"{len(both) - len(kept)} of {len(both)} probes left out: the base has "
            f"{base.positions} positions for a question and its answer",
        )
    if not kept:
        raise DataError(f"no probe is left: all are longer than {base.positions} tokens")
    return [probe for probe, _ in kept], [tree for _, tree in kept]


def probe_tree(base: Base, probe: Probe) -> Tree:
    """The beginning, and a branch for each choice behind a space.

    A choice is tokenised behind its beginning, since tokenizers that mark where a text begins would
    mark it on a choice alone.
    """

    def tokens(text: str) -> list[int]:
        encoded = base.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(encoded["input_ids"])

    begun = probe.prompt.strip()
    given = tokens(begun)
    branches = [Branch(tuple(tokens(f"{begun} {text}")[len(given) :])) for text in probe.choices]
    return Tree((*lead_of(base), *given), tuple(branches))


def fits(base: Base, tree: Tree) -> bool:
    longest = len(tree.prompt) + max(len(branch.tokens) for branch in tree.branches)
    return base.positions is None or longest <= base.positions


def choice_scores(base: Base, trees: Sequence[Tree], packing: Packing) -> list[list[float]]:
    """Mean log-probability per token of every choice under the active adapter (nats)."""
    found: list[list[float]] = [[] for _ in trees]
    for size in sorted({len(tree.branches) for tree in trees}):
        places = [n for n, tree in enumerate(trees) if len(tree.branches) == size]
        for start in range(0, len(places), AT_ONCE):
            some = places[start : start + AT_ONCE]
            sums = response_logps(base, [trees[n] for n in some], packing)  # (some, size)
            for place, line in zip(some, sums.tolist(), strict=True):
                lengths = (branch.n_scored for branch in trees[place].branches)
                found[place] = [total / n for total, n in zip(line, lengths, strict=True)]
    return found


def hits(probes: Sequence[Probe], scores: Sequence[Sequence[float]]) -> list[float]:
    """1 where the right choice scores above every other one, else 0: a draw is no answer."""
    found = []
    for probe, line in zip(probes, scores, strict=True):
        others = [score for n, score in enumerate(line) if n != probe.answer]
        found.append(float(line[probe.answer] > max(others)))
    return found


def right_answers(
    base: Base, probes: Sequence[Probe], trees: Sequence[Tree], packing: Packing
) -> list[float]:
    """Which questions the active adapter answers right: 1 or 0 for each."""
    return hits(probes, choice_scores(base, trees, packing))
