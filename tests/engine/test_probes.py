"""Probes: what is asked, whose choice counts, and that noise does not trip their gate."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from tests.engine.tiny import events, make_run, preference_row, result, save_tiny, save_words
from training.engine.__main__ import main
from training.engine.batching import Packing
from training.engine.config import AdapterConfig, BaseConfig
from training.engine.errors import DataError
from training.engine.models import Base, load_base
from training.engine.probe_figures import probe_figures, what_fell
from training.engine.probes import (
    Probe,
    choice_scores,
    encode_probes,
    hits,
    known_probes,
    probe_of,
)
from training.engine.rundir import EventWriter

SHARED, PLAIN = Packing(512, shared=True), Packing(512, shared=False)
LEAST = 1e-9


def knows(folder: Path, table: dict[str, dict[str, float]]) -> Base:
    """A base whose next word has these probabilities, by the word before it alone.

    Its only layer adds nothing; a word's embedding is a unit vector e, which the last norm makes
    √32·e, and the head holds the logarithms over √32.
    """
    save_words(folder, words="q a b c", tie_word_embeddings=False)
    model: Any = LlamaForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    size, hidden = model.get_input_embeddings().weight.shape
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.get_input_embeddings().weight.copy_(torch.eye(size, hidden))
        head = torch.full((size, hidden), math.log(LEAST) / math.sqrt(hidden))
        for before, following in table.items():
            for word, probability in following.items():
                place = tokenizer.convert_tokens_to_ids([word, before])
                head[place[0], place[1]] = math.log(probability) / math.sqrt(hidden)
        model.get_output_embeddings().weight.copy_(head)
    model.save_pretrained(folder)
    return load_base(BaseConfig(source=str(folder)))


#: After q, a is half as probable as b; b goes on with c.
TABLE = {"q": {"a": 0.25, "b": 0.5, "c": 0.25}, "b": {"a": 0.5, "b": 0.25, "c": 0.25}}


def writer(folder: Path) -> EventWriter:
    folder.mkdir(exist_ok=True)
    return EventWriter(folder / "events.jsonl")


@pytest.mark.parametrize("template", [True, False])
def test_the_best_mean_per_token_is_the_answer_with_and_without_a_chat_template(
    tmp_path: Path, template: bool
):
    base = knows(tmp_path / "base", TABLE)
    if not template:
        base.tokenizer.chat_template = None
    probes, trees = encode_probes(
        base, [Probe("p", "k", "q", ("a", "b c", "c"), 1)], writer(tmp_path / "run")
    )
    read = base.tokenizer.decode
    assert read(list(trees[0].prompt)) == "q"
    assert [read(list(branch.tokens)) for branch in trees[0].branches] == ["a", "b c", "c"]
    for packing in (SHARED, PLAIN):
        (scores,) = choice_scores(base, trees, packing)
        # a: ln 1/4. b c: (ln 1/2 + ln 1/4) / 2, though their sum, ln 1/8, is the least
        assert scores == pytest.approx(
            [math.log(0.25), (math.log(0.5) + math.log(0.25)) / 2, math.log(0.25)], abs=1e-4
        )
        assert hits(probes, [scores]) == [1.0]


def test_a_draw_is_no_answer():
    probe = Probe("p", "k", "q", ("a", "b"), 0)
    assert hits([probe] * 3, [[-1.0, -1.0], [-1.0, -2.0], [-2.0, -1.0]]) == [0.0, 1.0, 0.0]


def test_what_stands_beside_a_question_changes_nothing(tmp_path: Path):
    base = load_base(BaseConfig(source=str(save_tiny(tmp_path / "base"))))
    _, known = known_probes(tmp_path)
    asked = [*known[::4], Probe("two", "k", "Yes or no?", ("yes", "no, and a longer one"), 0)]
    _, trees = encode_probes(base, asked, writer(tmp_path / "run"))
    together = choice_scores(base, trees, SHARED)
    alone = [choice_scores(base, [tree], PLAIN)[0] for tree in trees]
    back = choice_scores(base, trees[::-1], PLAIN)[::-1]
    for one, other, third in zip(together, alone, back, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
        assert third == pytest.approx(other, abs=1e-4)
    assert [len(line) for line in together] == [len(probe.choices) for probe in asked]


def test_the_enclosed_questions_are_whole_and_their_answers_at_no_place(tmp_path: Path):
    source, probes = known_probes(tmp_path)
    assert source == "enclosed"
    kinds = Counter(probe.kind for probe in probes)
    assert kinds == dict.fromkeys(("arithmetic", "grammar", "knowledge", "inference", "format"), 10)
    assert len({probe.id for probe in probes}) == len({probe.prompt for probe in probes}) == 50
    assert {len(probe.choices) for probe in probes} == {4}
    places = Counter(probe.answer for probe in probes)
    assert min(places[place] for place in range(4)) >= 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": " "}, "prompt"),
        ({"kind": 3}, "kind"),
        ({"choices": ["a"]}, "two or more different"),
        ({"choices": ["a", "a"]}, "two or more different"),
        ({"choices": ["a", ""]}, "two or more different"),
        ({"choices": "ab"}, "two or more different"),
        ({"answer": 2}, "index of a choice: 0 to 1"),
        ({"answer": True}, "index of a choice"),
        ({"answer": "a"}, "index of a choice"),
    ],
)
def test_a_row_that_is_no_question_is_named(changes: dict[str, Any], words: str):
    row = {"id": "mine", "prompt": "q", "choices": ["a", "b"], "answer": 0, **changes}
    with pytest.raises(DataError, match=rf"probe row 3 \(mine\): .*{words}"):
        probe_of(row, "probe row 3")


def test_a_question_longer_than_the_base_is_left_out_and_counted(tmp_path: Path):
    source = str(save_words(tmp_path / "base", max_position_embeddings=12))
    base = load_base(BaseConfig(source=source))
    log = writer(tmp_path / "run")
    short, long = (Probe("p", "k", "w1 " * n, ("w2", "w3"), 0) for n in (1, 12))
    kept, trees = encode_probes(base, [short, long], log)
    assert (kept, len(trees)) == ([short], 1)
    assert '"probes_too_long"' in (tmp_path / "run" / "events.jsonl").read_text()
    with pytest.raises(DataError, match="no probe is left"):
        encode_probes(base, [long], log)


# The gate ---------------------------------------------------------------------------------------


def answered(lost: int, gained: int, n: int = 50) -> tuple[list[str], list[float], list[float]]:
    """(kinds, before, after) of n questions, of which so many were lost and gained."""
    before = [1.0] * lost + [0.0] * gained + [1.0] * (n - lost - gained)
    after = [0.0] * lost + [1.0] * gained + [1.0] * (n - lost - gained)
    return ["sums" if k % 2 else "words" for k in range(n)], before, after


@pytest.mark.parametrize(
    ("lost", "gained", "passed"),
    [
        (0, 0, True),
        (5, 0, True),  # a tenth, and no more
        (6, 0, False),
        (8, 4, True),  # more than a tenth was lost, and less than that after what was gained
        (10, 4, True),  # −0.12 ± 1.96·√((14/50 − 0.12²)/50) = −0.12 ± 0.143, which holds 0
        (20, 4, False),  # −0.32 ± 0.168
        (0, 20, True),
    ],
)
def test_the_gate_wants_a_fall_that_is_large_and_no_chance(lost: int, gained: int, passed: bool):
    found = probe_figures(*answered(lost, gained), 0.1)
    assert found["change"]["value"] == pytest.approx((gained - lost) / 50)
    assert found["passed"] is passed
    assert probe_figures(*answered(lost, gained), None)["passed"] is None


def test_the_figures_are_those_worked_by_hand():
    found = probe_figures(*answered(6, 0), 0.1)
    # Wilson, p = 44/50, z = 1.96: (p + z²/2n ± z√(p(1−p)/n + z²/4n²)) / (1 + z²/n)
    # = (0.918416 ± 0.097926) / 1.076832
    after = found["after"]
    assert (after["value"], after["n"]) == (0.88, 50)
    assert (after["low"], after["high"]) == pytest.approx((0.76195, 0.94383), abs=1e-5)
    assert found["before"]["value"] == 1.0
    assert {kind: each["after"]["value"] for kind, each in found["by_kind"].items()} == {
        "words": 22 / 25,
        "sums": 22 / 25,
    }
    assert what_fell(found) == (
        "general questions answered right fell from 50 to 44 of 50 (words from 25 to 22 of 25, "
        "sums from 25 to 22 of 25), and a fall by at most 10.0% of them was allowed"
    )


@pytest.mark.parametrize(("lost", "passed"), [(3, True), (4, False)])
def test_four_questions_are_the_fewest_that_are_no_chance(lost: int, passed: bool):
    # the share of resamples without a lost question: (47/50)^50 = 4.5 %, (46/50)^50 = 1.5 %
    assert probe_figures(*answered(lost, 0), 0.01)["passed"] is passed


def test_no_change_has_an_interval_of_no_width():
    change = probe_figures(*answered(0, 0), 0.1)["change"]
    assert (change["value"], change["low"], change["high"]) == (0.0, 0.0, 0.0)


# A whole evaluation -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Evaluations of a policy that is its base, and of one that was spoilt.

    The questions are the enclosed ones, with the base's own answers as the right ones.
    """
    folder = tmp_path_factory.mktemp("measured")
    source = str(save_tiny(folder / "base"))
    base = load_base(BaseConfig(source=source))
    _, known = known_probes(folder)
    _, trees = encode_probes(base, known, writer(folder / "log"))
    rows = []
    for probe, scores in zip(known, choice_scores(base, trees, PLAIN), strict=True):
        best = max(range(len(scores)), key=scores.__getitem__)
        rows.append(
            {"id": probe.id, "kind": probe.kind, "prompt": probe.prompt,
             "choices": list(probe.choices), "answer": best}
        )  # fmt: skip
    found = {}
    base.add_adapter("same", AdapterConfig())
    base.add_adapter("spoilt", AdapterConfig())
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in base.parameters("spoilt"):
            parameter.normal_(std=1.0)
    for name in ("same", "spoilt"):
        base.save_adapter(name, folder / name)
        config = {
            "method": "evaluate",
            "base": {"source": source},
            "evaluate": {
                "policy_adapter": str(folder / name), "general": True, "gate": 100.0,
                "probe_gate": 0.1,
            },
        }  # fmt: skip
        test = [preference_row(n) for n in range(3)]
        found[name] = make_run(folder / f"run-{name}", config, test=test, probes=rows)
        assert main(["run", str(found[name])]) == 0
    return found


def test_a_policy_that_is_its_base_passes_with_no_change_at_all(measured: dict[str, Path]):
    found = result(measured["same"])["evaluation"]["forgetting"]["probes"]
    assert found["change"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": 50}
    assert found["passed"] is True
    assert found["source"] == "data/probes.jsonl"
    assert "probe_gate" not in {e.get("code") for e in events(measured["same"])}


def test_a_policy_that_was_spoilt_fails_and_what_fell_is_said(measured: dict[str, Path]):
    run = measured["spoilt"]
    found = result(run)
    known = found["evaluation"]["forgetting"]["probes"]
    assert (known["before"]["value"], known["passed"]) == (1.0, False)
    (said,) = [e["message"] for e in events(run) if e.get("code") == "probe_gate"]
    assert what_fell(known) in said
    assert "fell from 50 to" in said
    assert found["metrics"]["probe/change"] == known["change"]["value"] < -0.1
    assert found["metrics"]["probe/accuracy_after_low"] == known["after"]["low"]
    html = (run / found["report"]).read_text(encoding="utf-8")
    assert f"Failed the forgetting gate: {what_fell(known)}." in html


def test_an_empty_file_of_questions_is_refused(tmp_path: Path, measured: dict[str, Path]):
    config = json.loads((measured["same"] / "config.json").read_text())
    run = make_run(tmp_path / "run", config, test=[preference_row(0)], probes=[])
    assert main(["run", str(run)]) == 1
    assert "data/probes.jsonl holds no rows" in result(run)["reason"]
