"""The dataset card of a snapshot: what is in it, how it was made, how to load it."""

from __future__ import annotations

from annotate.models import Snapshot
from annotate.selectors.quality import project_agreement

SIZES = (1_000, 10_000, 100_000, 1_000_000)
LABELS = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M")


def size_category(n: int) -> str:
    for bound, label in zip(SIZES, LABELS, strict=True):
        if n < bound:
            return label
    return "n>1M"


def dataset_card(snapshot: Snapshot, format: str) -> str:
    """Markdown with the YAML head that the Hub and `datasets` read."""
    n = snapshot.n_train + snapshot.n_test
    suffix = "-*.parquet" if format == "parquet" else ".jsonl"
    agreement = project_agreement(project=snapshot.project)
    if agreement.alpha is None:
        trust = f"not available: {agreement.reason}"
    else:
        interval = (
            f" [95 % interval {agreement.low:.3f} to {agreement.high:.3f}, clustered by prompt]"
            if agreement.low is not None and agreement.high is not None
            else ""
        )
        trust = (
            f"{agreement.alpha:.3f}{interval}, {agreement.n_judgments} judgments of "
            f"{agreement.n_annotators} annotators on {agreement.n_comparisons} comparisons"
        )
    left_out = snapshot.summary.get("left_out", {})
    dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items())) or "none"
    belief = snapshot.rule["belief"]
    return f"""---
pretty_name: {snapshot.project.slug} preferences, snapshot {snapshot.number}
size_categories:
- {size_category(n)}
tags:
- human-feedback
- preference
- trl
- dpo
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train{suffix}
  - split: test
    path: data/test{suffix}
---
# {snapshot.project.slug}: preference snapshot {snapshot.number}

Pairwise human preferences in TRL's conversational layout: `prompt`, `chosen`, `rejected`.

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
- Belief: {belief["name"]} v{belief["version"]}; P(A better) = {belief["probability"]}.
- Chosen: {snapshot.rule["chosen"]}.
- Split: {snapshot.rule["split"]}; test fraction {snapshot.rule["test_fraction"]}.
- Hash: {snapshot.rule["sha256"]}.

No row names an annotator or holds what one wrote.

## Loading
```python
from datasets import load_dataset

preferences = load_dataset("PATH_OR_REPO")  # TRL's DPOTrainer and RewardTrainer take it as it is
```

Check the licences of the prompts and responses before you publish: the platform does not know them.
"""
