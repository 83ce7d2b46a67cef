"""The rows of a snapshot of labels: a text, its label, and how sure people were of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from annotate.errors import NothingToFreeze
from annotate.formats.canonical import canonical_json
from annotate.models import Aggregation, Comparison, Preference

#: Stored with every snapshot of labels.
RULE: dict[str, Any] = {
    "version": 1,
    "rows": "texts with a label that more people gave than any other",
    "chosen": "label is the outcome; weight is the share of people who gave it",
    "layout": (
        "text where every row is a prompt of one message without a response; messages otherwise"
    ),
    "split": (
        "by the first 8 bytes of SHA-256(salt + prompt digest): a prompt is in one split only; "
        "held-out rows of a label that no training row has are left out"
    ),
    "sha256": "over the rows' canonical JSON, one a line, sorted by the bytes of their digests",
}


def is_plain(comparison: Comparison) -> bool:
    """Whether an item is one text and nothing around it."""
    messages = comparison.prompt.messages
    return comparison.response_a is None and len(messages) == 1 and messages[0]["role"] == "user"


def row_content(preference: Preference, *, plain: bool) -> dict[str, Any]:
    """One row, as the engine's `classify` reads it. Holds no annotator and no database id."""
    comparison = preference.comparison
    content = (
        {"text": comparison.prompt.messages[0]["content"]}
        if plain
        else {"messages": comparison.conversation}
    )
    return {
        "id": comparison.digest,
        **content,
        "label": preference.label,
        "weight": round(preference.probability, 6),
        "n_judgments": sum(preference.label_counts.values()),
    }


def label_rows(
    aggregation: Aggregation, held_out: Callable[[str], bool]
) -> tuple[list[tuple[str, Preference, str]], Counter[str]]:
    """([(content, preference, split), …], why others were left out) of the texts of a project.

    held_out: whether the prompt of a digest is in the test split. Raises NothingToFreeze where
    the training rows have fewer than two labels: nothing could be learnt from them.
    """
    left_out: Counter[str] = Counter()
    kept: list[tuple[Preference, str]] = []
    found = aggregation.preferences.select_related("comparison__prompt", "comparison__response_a")
    for preference in found.iterator(chunk_size=2000):
        if preference.outcome != Preference.Outcome.LABEL:
            left_out["tie"] += 1
        else:
            digest = preference.comparison.prompt.digest
            kept.append((preference, "test" if held_out(digest) else "train"))
    trained = {preference.label for preference, split in kept if split == "train"}
    if kept and len(trained) < 2:
        raise NothingToFreeze(
            f"the training rows would have {len(trained)} of the labels: there is nothing to tell "
            "apart. Collect more judgments, or change the test fraction"
        )
    usable = [(p, split) for p, split in kept if p.label in trained]
    if len(usable) < len(kept):
        left_out["label_not_in_train"] = len(kept) - len(usable)
    plain = all(is_plain(preference.comparison) for preference, _ in usable)
    return [
        (canonical_json(row_content(p, plain=plain)), p, split) for p, split in usable
    ], left_out
