"""More than the answer in a snapshot: margins, judgments, rewrites, and who knew the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from annotate.export.writers import export_snapshot
from annotate.formats.canonical import sha256
from annotate.models import Project, Snapshot
from annotate.services.freezing import freeze_snapshot
from annotate.services.judging import submit_judgment
from annotate.services.projects import create_project
from annotate.services.serving import next_assignment
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People
from training.engine.human_agreement import judged
from training.services.folders import conversation_lines

FORM = {
    "strength": 8,
    "aspects": [{"name": "helpful"}],
    "ratings": [{"name": "overall", "low": 1, "high": 5}],
    "reasons": ["tone", "factual"],
    "rationale": "required",
    "rewrite": "optional",
    "spans": ["error"],
    "known_model": True,
}
BETTER, WORSE = "A colour.", "A fruit."


def asked(people: People, prompts: int = 8, overlap: int = 3) -> Project:
    project = create_project(
        workspace=people.workspace, name="Asked", slug="asked", overlap=overlap, form=FORM
    )
    for number in range(prompts):
        make_comparison(project, prompt=f"What is red, {number}?", a=BETTER, b=WORSE)
    return project


def say(project: Project, name: str, *, size: int, better: str = BETTER, **details: Any) -> None:
    """One person's answer to everything: `better` by `size` steps, or a tie where that is 0."""
    person = make_annotator(project.workspace, name=name)
    while assignment := next_assignment(project=project, annotator=person):
        a, _ = assignment.comparison.pair
        left_is_better = (a.text == better) != assignment.swapped
        side, other = ("left", "right") if left_is_better else ("right", "left")
        given = {
            "aspects": {"helpful": side},
            "ratings": {side: {"overall": 4}, other: {"overall": 1}},
            "reasons": ["factual"],
            "spans": [{"on": other, "start": 2, "end": 7, "category": "error"}],
            **details,
        }
        submit_judgment(
            assignment=assignment,
            annotator=person,
            answer=side if size else "tie",
            strength=(-size if side == "left" else size) if size else None,
            rationale=f"the secret words of {name}",
            details=given,
            idempotency_key=f"{name}-{assignment.pk}",
        )


def rows_of(snapshot: Snapshot) -> list[dict[str, Any]]:
    return [json.loads(content) for content in snapshot.rows.values_list("content", flat=True)]


def test_a_row_tells_margin_judgments_and_rewrites_by_chosen_and_rejected(
    people: People,
) -> None:
    project = asked(people)
    say(project, "ann", size=3, rewrite={"text": "Red is a colour."})
    say(project, "ben", size=1, better=WORSE)
    say(project, "cat", size=4, known_model=True)
    snapshot = freeze_snapshot(project=project, test_fraction=0.5)
    for row in rows_of(snapshot):
        assert row["chosen"][0]["content"] == BETTER
        # Of 4 steps a side: (3/4 - 1/4 + 4/4) / 3 = 1/2.
        assert row["margin"] == pytest.approx(0.5)
        assert row["rewrites"] == [{"of": "chosen", "text": "Red is a colour."}]
        assert [one["choice"] for one in row["judgments"]] == ["chosen", "chosen", "rejected"]
        assert [one["strength"] for one in row["judgments"]] == [3, 4, 1]
        first, second, third = row["judgments"]
        assert first["aspects"] == [{"name": "helpful", "better": "chosen"}]
        assert first["ratings"] == [
            {"of": "chosen", "name": "overall", "score": 4},
            {"of": "rejected", "name": "overall", "score": 1},
        ]
        assert first["reasons"] == ["factual"]
        assert first["spans"] == [{"of": "rejected", "start": 2, "end": 7, "category": "error"}]
        assert third["spans"][0]["of"] == "chosen"
        assert [one["known_model"] for one in (first, second, third)] == [False, True, False]
        # The engine reads them as people's agreement on held-out rows.
        assert judged(row, "row") == [("1", 1.0), ("2", 1.0), ("3", 0.0)]
        assert "secret" not in json.dumps(row)
    assert "mean over the judgments" in snapshot.rule["margin"]
    assert "marked" in snapshot.rule["known_model"]


def test_ties_pull_the_margin_to_zero_and_it_never_falls_below(people: People) -> None:
    project = asked(people, overlap=3)
    say(project, "ann", size=1)
    say(project, "ben", size=1)
    say(project, "cat", size=4, better=WORSE)
    snapshot = freeze_snapshot(project=project, test_fraction=0.5)
    # (1/4 + 1/4 - 4/4) / 3 is below 0.
    assert {row["margin"] for row in rows_of(snapshot)} == {0.0}


def test_what_those_said_who_knew_the_model_can_be_left_out(people: People) -> None:
    project = asked(people, overlap=3)
    say(project, "ann", size=2)
    say(project, "ben", size=2, better=WORSE, known_model=True)
    say(project, "cat", size=2, better=WORSE, known_model=True)
    kept = freeze_snapshot(project=project, test_fraction=0.5)
    out = freeze_snapshot(project=project, test_fraction=0.5, leave_out_known=True)
    assert {row["chosen"][0]["content"] for row in rows_of(kept)} == {WORSE}
    assert {row["chosen"][0]["content"] for row in rows_of(out)} == {BETTER}
    assert {row["n_judgments"] for row in rows_of(out)} == {1}
    assert "do not count" in out.rule["belief"]["known_model"]
    assert "known_model" not in kept.rule["belief"]
    # The latest aggregation is the other one's; it is not taken by mistake.
    again = freeze_snapshot(project=project, test_fraction=0.5)
    assert again.sha256 == kept.sha256
    assert again.aggregation == kept.aggregation


def test_a_project_that_asks_nothing_more_keeps_its_columns(people: People) -> None:
    project = make_project(people.workspace)
    for number in range(8):
        comparison = make_comparison(project, prompt=f"{number}?")
        make_judgment(comparison, make_annotator(people.workspace))
    snapshot = freeze_snapshot(project=project, test_fraction=0.5)
    assert set(rows_of(snapshot)[0]) == {
        "id", "prompt_id", "prompt", "chosen", "rejected", "probability", "n_judgments",
    }  # fmt: skip
    assert not {"margin", "judgments", "rewrites", "known_model"} & set(snapshot.rule)


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_datasets_reads_every_column_and_the_hash_holds(
    people: People, tmp_path: Path, format: str
) -> None:
    project = asked(people, overlap=2)
    say(project, "ann", size=3, rewrite={"text": "Red is a colour.\n"})
    say(project, "ben", size=0, aspects={"helpful": "tie"}, reasons=[], spans=[])
    snapshot = freeze_snapshot(project=project, test_fraction=0.5)
    folder = export_snapshot(snapshot=snapshot, folder=tmp_path / "out", format=format)
    cache = str(tmp_path / "cache")
    loaded = load_dataset(str(folder), cache_dir=cache)
    rows = [row for split in loaded.values() for row in split]
    lines = [
        json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")) for row in rows
    ]
    lines.sort(key=lambda line: bytes.fromhex(sha256(line)))
    assert sha256("".join(f"{line}\n" for line in lines)) == snapshot.sha256
    rewritten = load_dataset(str(folder), "rewrites", cache_dir=cache)["train"]
    assert rewritten.num_rows == snapshot.n_train
    assert rewritten[0]["completion"] == [{"role": "assistant", "content": "Red is a colour.\n"}]
    assert rewritten[0]["prompt"][0]["role"] == "user"
    card = (folder / "README.md").read_text()
    assert "config_name: rewrites" in card
    assert "it holds rewritten answers alone" in card
    assert "secret" not in card
    # An export of ours may be written again.
    export_snapshot(snapshot=snapshot, folder=folder, format=format)


def test_fine_tuning_learns_the_rewritten_answer(people: People) -> None:
    project = asked(people, overlap=1)
    say(project, "ann", size=2, rewrite={"text": "Red is a colour."})
    row = freeze_snapshot(project=project, test_fraction=0.5).rows.first()
    assert row is not None
    (line,) = conversation_lines(row.content)
    assert json.loads(line)["messages"][-1]["content"] == "Red is a colour."
