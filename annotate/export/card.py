"""The dataset card: what a reader needs to know and to redo, with the Hub's front matter."""

from __future__ import annotations

import json
from typing import Any

from annotate.models import Snapshot

#: In every card's tags; a folder whose card has it is one of our exports and may be replaced.
MARK = "annotate-and-align"
#: What is known of the formats that rows were imported from.
LICENCES = {
    "import hh-rlhf": (
        "HH-RLHF, MIT, © 2022 Anthropic (its card: for preference models, not for SFT)"
    ),
    "import pandalm": "PandaLM test set, Apache-2.0, WeOpenML",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def dataset_card(*, snapshot: Snapshot, files: dict[str, str]) -> str:
    """README.md of an export; `files` maps each split to its path in the folder."""
    return f"{_front_matter(snapshot, files)}\n{_body(snapshot, files)}"


def _front_matter(snapshot: Snapshot, files: dict[str, str]) -> str:
    total = snapshot.n_train + snapshot.n_test
    size = next((name for limit, name in _SIZES if total < limit), "n>1M")
    # A JSON string is a YAML string; a project's name may hold anything.
    name = json.dumps(f"{snapshot.project.name}, snapshot {snapshot.number}")
    paths = "".join(f"  - split: {split}\n    path: {path}\n" for split, path in files.items())
    return (
        "---\n"
        f"pretty_name: {name}\n"
        "license: other\n"
        "license_name: see-sources\n"
        "license_link: '#sources'\n"
        f"tags:\n- {MARK}\n- human-feedback\n- preference\n- trl\n- rlhf\n- dpo\n"
        f"size_categories:\n- {size}\n"
        f"configs:\n- config_name: default\n  data_files:\n{paths}"
        "---\n"
    )


def _body(snapshot: Snapshot, files: dict[str, str]) -> str:
    summary, rule = snapshot.summary, snapshot.rule
    aggregation = snapshot.aggregation.rule
    return f"""\
# {_plain(snapshot.project.name)}, snapshot {snapshot.number}

Pairwise human preferences: a prompt, the response people preferred, the one they did not.
Frozen {snapshot.created_at:%Y-%m-%d %H:%M} UTC; SHA-256 `{snapshot.sha256}`.

| split | rows |
|---|---|
| train | {snapshot.n_train} |
| test | {snapshot.n_test} |

## Load it
```python
from datasets import load_dataset

dataset = load_dataset("path/to/this/folder")
```
TRL's `DPOTrainer` and `RewardTrainer` take both splits as they are (`prompt`, `chosen`, `rejected`
are lists of messages).

## Columns
- `prompt`, `chosen`, `rejected`: `[{{"role", "content"}}]`
- `probability`: how likely it is that the chosen response is better, under the rule below
- `n_judgments`: how many answers that rests on
- `id`, `prompt_id`: SHA-256 of the pair's and of the prompt's content
- `split`: train or test

## Rows
{snapshot.summary.get("kept", 0)} pairs were kept. {_left_out(summary)}
A prompt is never in both splits.

{_rules("From judgments to preferences", aggregation)}
{_rules("From preferences to rows", rule)}
## People
{_people(summary)}
Nobody's name, identity or free text is in this dataset.

## Sources
{_sources(summary)}

## Check the hash
```python
import hashlib, json
from datasets import load_dataset

rows = [row for split in load_dataset("path/to/this/folder").values() for row in split]
lines = [json.dumps(r, ensure_ascii=False, sort_keys=True, separators=(",", ":")) for r in rows]
lines.sort(key=lambda line: hashlib.sha256(line.encode()).hexdigest())
print(hashlib.sha256("".join(line + "\\n" for line in lines).encode()).hexdigest())
```

Files: {", ".join(f"`{path}`" for path in files.values())}.
"""


def _rules(title: str, rule: dict[str, Any]) -> str:
    lines = "".join(f"- {key}: {value}\n" for key, value in rule.items())
    return f"### {title}\n{lines}"


def _left_out(summary: dict[str, Any]) -> str:
    left_out = summary.get("left_out", {})
    if not left_out:
        return "None was left out."
    return f"Left out: {', '.join(f'{n} {key}' for key, n in left_out.items())}."


def _people(summary: dict[str, Any]) -> str:
    judgments, annotators = summary.get("judgments", 0), summary.get("annotators", 0)
    made = f"{judgments} judgments by {annotators} annotators."
    return f"{made} {_agreement(summary)}\n{_guidelines(summary)}"


def _agreement(summary: dict[str, Any]) -> str:
    found = summary.get("agreement", {})
    alpha = found.get("krippendorff_alpha")
    if alpha is None:
        reason = found.get("reason") or "it was not measured"
        return f"There is no figure of agreement: {reason}."
    text = f"Krippendorff's alpha (nominal) {alpha:.3f}"
    if found.get("low") is not None:
        text += f", 95 % interval {found['low']:.3f} to {found['high']:.3f} clustered by prompt"
    return f"{text}, on {found.get('comparisons', 0)} pairs judged more than once."


def _guidelines(summary: dict[str, Any]) -> str:
    versions = summary.get("guideline_versions", [])
    ours = ", ".join(str(version) for version in versions if version is not None)
    parts = [f"Judged under version {ours} of the project's guidelines."] if ours else []
    if None in versions:
        parts.append("Imported judgments were made under guidelines of their own.")
    return " ".join(parts)


def _sources(summary: dict[str, Any]) -> str:
    lines = []
    for source, n in summary.get("sources", {}).items():
        licence = LICENCES.get(source, "the platform does not know its licence")
        lines.append(f"- {_plain(source)}: {n} judged pairs; {licence}")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """One line without the characters that Markdown or HTML would act on."""
    return " ".join("".join(" " if letter in "<>[]`|*_#\\" else letter for letter in text).split())
