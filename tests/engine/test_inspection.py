"""What is wrong with rows is counted, named, and where nothing could be learnt refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.engine.tiny import assistant, events, make_run, preference_row, result, user
from training.engine.__main__ import main
from training.engine.inspection import Finding, inspect_pairs, refusal, strongly_connected
from training.engine.intervals import clustered_correlation

GOOD = [preference_row(n) for n in range(4)]


def row(name: str, better: str, worse: str, *, prompt: str = "Q?", p: float = 1.0) -> dict:
    return {
        "id": name, "prompt": user(prompt), "chosen": assistant(better),
        "rejected": assistant(worse), "probability": p,
    }  # fmt: skip


def found(rows: list[dict[str, Any]], test: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {finding.code: finding for finding in inspect_pairs(rows, test or [])}


def test_clean_rows_are_ok_everywhere() -> None:
    assert {f.level for f in inspect_pairs(GOOD, [preference_row(9)])} == {"ok"}


@pytest.mark.parametrize(
    ("code", "rows", "examples"),
    [
        ("empty", [row("a", "x", " "), row("b", "x", "y")], ("a",)),
        ("identical", [row("a", "x", "x"), row("b", "x", "y")], ("a",)),
        ("undecided", [row("a", "x", "y", p=0.5), row("b", "x", "z")], ("a",)),
        ("duplicate_pairs", [row("a", "x", "y"), row("b", "x", "y"), row("c", "y", "z")], ("b",)),
        ("contradictions", [row("a", "x", "y"), row("b", "y", "x"), row("c", "x", "z")],
         ("a", "b")),
        # P(chosen better) below a half says the opposite order
        ("contradictions", [row("a", "x", "y"), row("b", "x", "y", p=0.2)], ("a", "b")),
        ("cycles", [row("a", "x", "y"), row("b", "y", "z"), row("c", "z", "x"),
                    row("d", "x", "w")], ("a", "b", "c")),
    ],
)  # fmt: skip
def test_a_flaw_is_counted_with_its_rows(
    code: str, rows: list[dict[str, Any]], examples: tuple[str, ...]
) -> None:
    finding = found(rows)[code]
    assert (finding.level, finding.count, finding.examples) == ("warn", len(examples), examples)
    assert finding.of == len(rows)
    assert finding.todo.endswith(".")


def test_responses_of_different_prompts_make_no_cycle_and_no_contradiction() -> None:
    rows = [row("a", "x", "y"), row("b", "y", "x", prompt="Other?")]
    rows += [row("c", "y", "z", prompt="Third?"), row("d", "z", "x", prompt="Fourth?")]
    by_code = found(rows)
    assert by_code["contradictions"].count == by_code["cycles"].count == 0


def test_a_majority_settles_a_contradiction_before_cycles_are_looked_for() -> None:
    rows = [row("a", "x", "y"), row("b", "x", "y"), row("c", "y", "x")]
    rows += [row("d", "y", "z"), row("e", "z", "x")]
    # x > y by two to one, y > z, z > x: everything between them is on the cycle
    assert found(rows)["cycles"].count == 5
    # one to one says nothing, and without that edge there is no way round
    assert found(rows[1:])["cycles"].count == 0


def test_strongly_connected_parts_are_those_of_the_definition() -> None:
    edges = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "e"), ("e", "d"), ("e", "f")]
    parts = strongly_connected(edges)
    assert len({parts[node] for node in "abc"}) == 1
    assert parts["d"] == parts["e"] != parts["a"]
    assert "f" not in parts


def test_a_very_long_chain_of_responses_needs_no_recursion() -> None:
    edges = [(str(n), str(n + 1)) for n in range(20_000)]
    assert strongly_connected(edges) == {}
    assert len(strongly_connected([*edges, ("20000", "0")])) == 20_001


def test_held_out_rows_whose_prompt_is_trained_on_leak() -> None:
    held_out = [row("t1", "x", "y"), row("t2", "x", "w"), row("t3", "x", "y", prompt="New?")]
    finding = found([row("a", "x", "y")], held_out)["leaked"]
    assert (finding.level, finding.count, finding.of, finding.examples) == (
        "warn", 2, 3, ("t1", "t2"),
    )  # fmt: skip
    assert "(1 as the very same pair)" in finding.message


def test_length_bias_is_judged_with_its_interval() -> None:
    # 30 pairs three words longer, 10 one word shorter: Σd = 80, Σd² = 280, r = 80 / √(40 · 280)
    rows = [row(f"l{n}", "a b c d", "w", prompt=f"P{n}") for n in range(30)]
    rows += [row(f"s{n}", "a", "v w", prompt=f"R{n}") for n in range(10)]
    bias = found(rows)["length_bias"]
    assert bias.values["correlation"] == pytest.approx(80 / math.sqrt(40 * 280))
    assert bias.values["mean_difference"] == pytest.approx(2.0)
    assert bias.values["share_longer"] == pytest.approx(0.75)
    assert bias.values["correlation_low"] < bias.values["correlation"]
    assert (bias.level, bias.count, bias.of) == ("warn", 30, 40)
    few = found(rows[:10])["length_bias"]
    assert few.level == "ok"
    assert "too few to judge" in few.message


def test_the_correlation_is_pearsons_over_both_responses_and_knows_its_clusters() -> None:
    differences = [3.0, -1.0, 2.0, 0.0, 5.0, -2.0] * 10
    value, low, high = clustered_correlation(differences, [str(n) for n in range(60)])
    labels = [1.0, -1.0] * 60
    centred = [half for d in differences for half in (d / 2, -d / 2)]
    # numpy's own correlation of the 120 (label, centred length) points
    import numpy as np

    assert value == pytest.approx(float(np.corrcoef(labels, centred)[0, 1]))
    assert low < value < high
    # the same sixty pairs as six prompts with ten equal pairs each say less
    _, wide_low, wide_high = clustered_correlation(differences, [str(n % 6) for n in range(60)])
    assert wide_high - wide_low > 1.5 * (high - low)


def test_rows_of_which_none_can_teach_are_refused() -> None:
    assert "identical" not in refusal(inspect_pairs(GOOD))
    assert "same text" in refusal(inspect_pairs([row("a", "x", "x"), row("b", "y", "y")]))
    assert "0.5" in refusal(inspect_pairs([row("a", "x", "y", p=0.5)]))
    assert "empty" in refusal(inspect_pairs([row("a", "", " ")]))
    assert refusal([Finding("cut", "warn", 2, 2, "cut")]) == ""


def config(tiny: Path, method: str = "dpo", **more: Any) -> dict[str, Any]:
    return {"method": method, "base": {"source": str(tiny)}, "threads": 1, **more}


def test_preflight_prints_a_table_and_json_and_writes_nothing(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        *GOOD,
        # the template's prompt ends with a line feed, which merges with those of the response
        row("merges", "\n\nyes", "no"),
        row("quotes", "say <|im_end|>", "no", prompt="P2"),
        row("long", "yes " * 200, "no", prompt="P3"),
        row("asks", "x", "y", prompt="why " * 100),
    ]
    data = {"max_length": 120, "max_prompt_length": 60}
    folder = make_run(tmp_path / "run", config(tiny, data=data), train=rows, test=GOOD[:1])
    before = sorted(folder.rglob("*"))
    assert main(["preflight", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    by_code = {finding["code"]: finding for finding in told["findings"]}
    assert sorted(folder.rglob("*")) == before
    assert by_code["left_out"]["examples"] == ["asks"]
    assert by_code["cut"]["examples"] == ["long"]
    assert by_code["token_boundary"]["examples"] == ["merges"]
    assert by_code["leaked"]["count"] == 1
    assert by_code["pad_is_eos"]["count"] == 1  # SmolLM2's own tokenizer
    assert "tokens longer" in by_code["length_bias"]["message"]

    assert main(["preflight", str(folder)]) == 0
    table = capsys.readouterr().out
    assert "warn    token_boundary" in table
    assert "e.g. merges" in table


def test_preflight_of_what_cannot_be_learnt_ends_with_one(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = [row("a", "x", "x"), row("b", "y", "y")]
    folder = make_run(tmp_path / "run", config(tiny), train=same)
    assert main(["preflight", str(folder)]) == 1
    assert "refuse  identical" in capsys.readouterr().out
    assert main(["preflight", str(tmp_path)]) == 1
    assert "is it a run folder?" in capsys.readouterr().err
    # and a run stops there too, before anything is trained
    assert main(["run", str(folder)]) == 1
    assert result(folder)["status"] == "refused"
    assert "2 of 2 pairs whose two responses are the same text" in result(folder)["reason"]


def test_a_run_tells_what_it_found_and_what_that_cost(tiny: Path, tmp_path: Path) -> None:
    optim = {"max_steps": 1, "batch_size": 2}
    rows = [*GOOD, row("a", "x", "y"), row("b", "y", "x")]
    folder = make_run(tmp_path / "run", config(tiny, optim=optim), train=rows)
    assert main(["run", str(folder)]) == 0
    (told,) = [e for e in events(folder) if e["kind"] == "preflight"]
    assert 0 <= told["seconds"] < 60
    assert {f["code"]: f["count"] for f in told["findings"]}["contradictions"] == 2
    warned = [e for e in events(folder) if e["kind"] == "warning"]
    assert [e["code"] for e in warned] == ["preflight_contradictions"]


@pytest.mark.parametrize("method", ["sft", "ppo"])
def test_conversations_and_prompts_are_looked_at_too(
    method: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = {"id": "1", "messages": user("q") + assistant("")}
    asked = [{"id": str(n), "prompt": user("q")} for n in range(2)]
    more = {"ppo": {"reward_adapter": "x"}} if method == "ppo" else {}
    files = {"train": [talk, {**talk, "id": "2"}]} if method == "sft" else {"prompts": asked}
    folder = make_run(tmp_path / "run", config(tiny, method, **more), **files)
    assert main(["preflight", str(folder), "--json"]) == (1 if method == "sft" else 0)
    found = {f["code"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    if method == "sft":
        assert found["empty"]["level"] == "refuse"
        assert found["duplicate_conversations"]["examples"] == ["2"]
    else:
        assert found["repeated_prompts"]["count"] == 2
