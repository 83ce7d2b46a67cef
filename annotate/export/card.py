"""The dataset card of a snapshot: what is in it, how it was made, how to load it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from annotate.models import Project, Snapshot

SIZES = (1_000, 10_000, 100_000, 1_000_000)
LABELS = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M")


def size_category(n: int) -> str:
    for bound, label in zip(SIZES, LABELS, strict=True):
        if n < bound:
            return label
    return "n>1M"


def agreement_of(found: dict[str, Any] | None) -> str:
    """What was measured when the judgments were aggregated: a frozen card does not move."""
    if found is None or found["alpha"] is None:
        return f"not available: {found['reason'] if found else 'it was not measured'}"
    interval = found["reason"]
    if found["low"] is not None:
        interval = f"95 % interval {found['low']:.3f} to {found['high']:.3f}, clustered by prompt"
    return (
        f"{found['alpha']:.3f} [{interval}], {found['n_judgments']} judgments of "
        f"{found['n_annotators']} annotators on {found['n_comparisons']} comparisons"
    )


@dataclass(frozen=True)
class Words:
    """What a card says differently of compared responses and of labelled texts."""

    noun: str
    tags: str
    title: str
    layout: str
    value: str
    taken: str


COMPARED = Words(
    noun="preferences",
    tags="- human-feedback\n- preference\n- trl\n- dpo",
    title="preference snapshot",
    layout=("Pairwise preferences in TRL's conversational layout: `prompt`, `chosen`, `rejected`."),
    value="P(A better)",
    taken="TRL's DPOTrainer and RewardTrainer take it as it is",
)
LABELLED = Words(
    noun="labels",
    tags="- human-feedback\n- text-classification",
    title="label snapshot",
    layout="Texts that people labelled: `text` (or `messages`), `label`, and `weight`, its share.",
    value="P(label)",
    taken="rows of text and label",
)


def judges_in_words(snapshot: Snapshot) -> str:
    """Where a machine judged too: which, how many rows and how well; else nothing."""
    n = snapshot.summary.get("by_machine")
    if n is None:
        return ""
    machine = snapshot.rule["belief"]["machine"]
    found = machine["agreement"]
    interval = ""
    if found["low"] is not None:
        interval = f" [{found['low']:.3f}, {found['high']:.3f}]"
    return (
        f"**{n} rows were judged by a machine and by no person**: {machine['judge']} "
        f"({machine['model']}, digest `{machine['digest'][:16]}`), which agreed with people on "
        f"{found['value']:.3f}{interval} of {machine['calibrated_on']} comparisons. They carry "
        "`judged_by`, are in the train split alone, and have `n_judgments` 0. All other rows are "
        "people's.\n\n"
    )


def rewrites_config(snapshot: Snapshot, suffix: str) -> str:
    """The YAML of the config that holds rewritten answers; nothing where there are none."""
    if "rewrites" not in snapshot.rule:
        return ""
    return f"""- config_name: rewrites
  data_files:
  - split: train
    path: data/rewrites{suffix}
"""


def replies_in_words(snapshot: Snapshot) -> str:
    """The rules of the columns beyond the usual, and what of annotators is in a row."""
    named = [name for name in ("margin", "judgments", "rewrites") if name in snapshot.rule]
    rules = [f"- `{name}`: {snapshot.rule[name]}." for name in named]
    known = snapshot.rule["belief"].get("known_model") or snapshot.rule.get("known_model")
    if known:
        rules.append(f"- Who knew the model: {known}.")
    if "rewrites" in named:
        rules.append(
            '\nConfig `rewrites` (`load_dataset("PATH_OR_REPO", "rewrites")`) has the rewritten '
            "answers of the train rows as `prompt` and `completion`, for TRL's SFTTrainer."
        )
    words = (
        "No row names an annotator; of what one wrote it holds rewritten answers alone."
        if "rewrites" in named
        else "No row names an annotator or holds what one wrote."
    )
    return "\n".join([*rules, "", words])


def dataset_card(snapshot: Snapshot, format: str) -> str:
    """Markdown with the YAML head that the Hub and `datasets` read."""
    words = LABELLED if snapshot.project.kind == Project.Kind.LABELS else COMPARED
    n = snapshot.n_train + snapshot.n_test
    suffix = "-*.parquet" if format == "parquet" else ".jsonl"
    trust = agreement_of(snapshot.summary["aggregated"].get("agreement"))
    left_out = snapshot.summary.get("left_out", {})
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())) or "none"
    belief = snapshot.rule["belief"]
    ai_tag = "\n- rlaif" if "by_machine" in snapshot.summary else ""
    return f"""---
pretty_name: {snapshot.project.slug} {words.noun}, snapshot {snapshot.number}
size_categories:
- {size_category(n)}
tags:
{words.tags}{ai_tag}
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train{suffix}
  - split: test
    path: data/test{suffix}
{rewrites_config(snapshot, suffix)}---
# {snapshot.project.slug}: {words.title} {snapshot.number}

{judges_in_words(snapshot)}{words.layout}

| | |
|---|---|
| train rows | {snapshot.n_train} |
| test rows | {snapshot.n_test} |
| left out | {dropped} |
| agreement (Krippendorff's alpha, nominal) | {trust} |
| frozen | {snapshot.created_at:%Y-%m-%d %H:%M} UTC |
| sha256 | `{snapshot.sha256}` |

## How a row came to be
- Rows: {snapshot.rule["rows"]}.
- Belief: {belief["name"]} v{belief["version"]}; {words.value} = {belief["probability"]}.
- Chosen: {snapshot.rule["chosen"]}.
- Split: {snapshot.rule["split"]}; test fraction {snapshot.rule["test_fraction"]}.
- Hash: {snapshot.rule["sha256"]}.
{replies_in_words(snapshot)}

## Loading
```python
from datasets import load_dataset

{words.noun} = load_dataset("PATH_OR_REPO")  # {words.taken}
```

## Checking the hash
```python
import hashlib, json
from datasets import load_dataset

rows = [row for split in load_dataset("PATH_OR_REPO").values() for row in split]
lines = [json.dumps(r, ensure_ascii=False, sort_keys=True, separators=(",", ":")) for r in rows]
lines.sort(key=lambda line: hashlib.sha256(line.encode()).digest())
print(hashlib.sha256("".join(line + "\\n" for line in lines).encode()).hexdigest())
```

Check the licences of the prompts and responses before you publish: the platform does not know them.
"""
