"""Whole reward runs with ties, margins, weights, ensembles and normalised scores."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.engine.tiny import assistant, events, make_run, preference_row, result
from training.engine.__main__ import main
from training.engine.batching import Packing
from training.engine.config import BaseConfig, DataConfig
from training.engine.data import Tree, encode_pairs
from training.engine.errors import BaseModelError
from training.engine.files import adapter_digest
from training.engine.metrics import METRICS
from training.engine.models import load_base
from training.engine.reward import attach, row_weights, tree_scores, tree_values
from training.engine.rundir import EventWriter
from training.engine.scores import ScoreHead

DECIDED = [preference_row(n) for n in range(8)]
#: Two answers of the good kind, or two of the bad one: nobody can choose.
TIED = [
    preference_row(n, good=word, bad=f"{word},") | {"tie": True, "probability": 0.5}
    for n in range(12, 20)
    for word in [("yes indeed", "no never")[n % 2]]
]
HELD_OUT = [preference_row(n) for n in range(100, 106)]
PACKING = Packing(2048, shared=True)


def trained(
    folder: Path,
    tiny: Path,
    rows: list[dict[str, Any]],
    method: str = "reward",
    *,
    steps: int = 2,
    **section: Any,
) -> dict[str, Any]:
    """A finished run's result; all rows are in every batch."""
    config = {
        "method": method,
        "base": {"source": str(tiny)},
        "optim": {"lr": 1e-2, "batch_size": 64, "epochs": steps},
        method: section,
    }
    make_run(folder, config, train=rows, test=HELD_OUT)
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    names = {n for e in events(folder) if e["kind"] == "metrics" for n in e["values"]}
    assert names | set(result(folder)["metrics"]) <= set(METRICS)
    return result(folder)


def curve(folder: Path, name: str) -> list[float]:
    return [e["values"][name] for e in events(folder) if e["kind"] == "metrics"]


def test_a_model_of_ties_is_learnt_beside_the_scores(tiny: Path, tmp_path: Path) -> None:
    # Davidson's is the one that tests/engine/test_resume.py learns
    found = trained(tmp_path / "run", tiny, DECIDED + TIED, steps=12, ties="rao_kupper")
    # half of the rows are ties, and equal scores tie as often: ½·ln 4 + ½·ln 2
    assert curve(tmp_path / "run", "loss/train")[0] == pytest.approx(1.039721, abs=1e-5)
    assert curve(tmp_path / "run", "loss/train")[-1] < 0.8
    assert found["metrics"]["reward/accuracy"] == 1.0
    parameters = curve(tmp_path / "run", "reward/tie_parameter")
    assert found["metrics"]["reward/tie_parameter"] == parameters[-1] != parameters[0]


def test_a_given_parameter_stays_and_half_counts_a_tie_as_a_coin_flip(
    tiny: Path, tmp_path: Path
) -> None:
    fixed = trained(tmp_path / "fixed", tiny, DECIDED[:4], ties="rao_kupper", tie_parameter=3.0)
    assert fixed["metrics"]["reward/tie_parameter"] == pytest.approx(3.0)
    # at equal scores P(better) is 1/(1 + θ)
    assert curve(tmp_path / "fixed", "loss/train")[0] == pytest.approx(math.log(4.0), abs=1e-5)
    trained(tmp_path / "half", tiny, DECIDED + TIED, steps=12, ties="half")
    losses = curve(tmp_path / "half", "loss/train")
    assert losses[0] == pytest.approx(math.log(2.0), abs=1e-5)
    # a coin flip costs ln 2 at best, and half of the rows are one
    assert math.log(2.0) / 2 < losses[-1] < 0.5


@pytest.mark.parametrize("method", ["reward", "dpo"])
def test_margins_are_asked_for_and_weights_move_the_mean(
    method: str, tiny: Path, tmp_path: Path
) -> None:
    rows = [row | {"margin": 1.0, "weight": 2.0} for row in DECIDED[:4]]
    rows += [row | {"weight": 1.0} for row in DECIDED[4:8]]
    trained(tmp_path / "run", tiny, rows, method=method, steps=4, margin=True)
    # (2·(−log σ(−1)) + 1·ln 2) / 3
    start = (2 * 1.313262 + 0.693147) / 3
    assert curve(tmp_path / "run", "loss/train")[0] == pytest.approx(start, abs=1e-5)
    assert curve(tmp_path / "run", "loss/train")[-1] < start


def test_equal_weights_give_the_bytes_of_no_weights(tiny: Path, tmp_path: Path) -> None:
    doubted = [row | {"weight": 0.3, "margin": 0.7} for row in DECIDED]
    trained(tmp_path / "plain", tiny, DECIDED)
    trained(tmp_path / "doubted", tiny, doubted)
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "doubted" / name).read_bytes()
    assert not (tmp_path / "plain" / "adapter" / "reward_scale.json").exists()


@pytest.mark.parametrize(
    ("rows", "section", "words"),
    [
        (DECIDED, {"margin": True}, "no training row has a margin"),
        (DECIDED, {"ties": "davidson"}, "none of the training rows' judgments are ties"),
        (TIED, {"ties": "rao_kupper"}, "all of the training rows' judgments are ties"),
    ],
)
def test_rows_that_cannot_give_what_is_asked_are_refused(
    rows: list[dict[str, Any]], section: dict[str, Any], words: str, tiny: Path, tmp_path: Path
) -> None:
    config = {"method": "reward", "base": {"source": str(tiny)}, "reward": section}
    folder = make_run(tmp_path / "run", config, train=rows)
    assert main(["run", str(folder)]) == 1
    assert result(folder)["status"] == "refused"
    assert words in result(folder)["reason"]


@pytest.fixture(scope="module")
def ensemble(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ensemble"
    # pairs that contradict each other, so that heads have something to disagree about
    torn = [
        row | {"chosen": row["rejected"], "rejected": row["chosen"], "prompt_id": f"{n}-torn"}
        for n, row in enumerate(DECIDED[:3])
    ]
    trained(
        folder, tiny, DECIDED + torn, steps=8, ensemble=3, normalize="mean_std", conservative=0.5
    )
    return folder


def test_heads_of_an_ensemble_differ_and_score_as_one(ensemble: Path, tiny: Path) -> None:
    assert curve(ensemble, "loss/train")[0] == pytest.approx(math.log(2.0), abs=1e-5)
    disagreement = curve(ensemble, "reward/disagreement")
    assert disagreement[0] == 0.0, "before the first step all heads are zero"
    assert min(disagreement[1:]) > 0.0, "and from then on none equals another"
    assert result(ensemble)["metrics"]["reward/disagreement"] > 0.0
    assert result(ensemble)["metrics"]["reward/accuracy"] == 1.0

    base = load_base(BaseConfig(source=str(tiny)))
    head = attach(base, str(ensemble / "adapter"))
    assert head.weight.shape == (3, base.hidden_size)
    log = EventWriter(ensemble / "probe.jsonl")
    trees = [
        Tree(pair.tree.prompt, pair.tree.branches[:1])
        for pair in encode_pairs(base, rows_of(ensemble), DataConfig(), log, "train")
    ]
    with base.use("reward"):
        each = tree_values(base, head.each, trees, PACKING)[:, 0]
        scores = tree_scores(base, head, trees, PACKING)[:, 0]
    # the score by hand from reward_scale.json
    scale = json.loads((ensemble / "adapter" / "reward_scale.json").read_text(encoding="utf-8"))
    centred = each - torch.tensor(scale["centres"])
    raw = centred.mean(1) - 0.5 * ((centred - centred.mean(1, keepdim=True)) ** 2).mean(1).sqrt()
    torch.testing.assert_close(scores, (raw - scale["mean"]) / scale["std"], atol=1e-4, rtol=1e-4)
    # the chosen training responses are what the scale was taken from
    assert scores.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert scores.std(correction=0).item() == pytest.approx(1.0, abs=1e-4)

    # stock PEFT loads the heads as labels
    tokenizer = AutoTokenizer.from_pretrained(ensemble / "adapter")
    stock = AutoModelForSequenceClassification.from_pretrained(
        tiny, num_labels=3, pad_token_id=tokenizer.pad_token_id
    )
    stock = PeftModel.from_pretrained(stock, ensemble / "adapter").eval()
    with torch.no_grad():
        tokens = trees[0].prompt + trees[0].branches[0].tokens
        logits = stock(input_ids=torch.tensor([tokens])).logits[0]
    torch.testing.assert_close(logits, each[0], atol=1e-4, rtol=1e-4)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_evaluation_reads_the_scale_and_a_damaged_one_is_refused(
    ensemble: Path, tiny: Path, tmp_path: Path
) -> None:
    adapter = str(ensemble / "adapter")
    config = {
        "method": "evaluate",
        "base": {"source": str(tiny)},
        "evaluate": {"reward_adapter": adapter},
    }
    folder = make_run(tmp_path / "evaluate", config, test=HELD_OUT)
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    trained_metrics = result(ensemble)["metrics"]
    for name in ("reward/accuracy", "reward/margin", "reward/disagreement"):
        assert result(folder)["metrics"][name] == pytest.approx(trained_metrics[name], rel=1e-5)

    copy = tmp_path / "copy"
    copy.mkdir()
    for path in (ensemble / "adapter").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    before = adapter_digest(copy)
    assert before == adapter_digest(ensemble / "adapter")
    scale = json.loads((copy / "reward_scale.json").read_text(encoding="utf-8"))
    for change in ({"std": 0.0}, {"centres": [0.0]}, {"mean": "high"}, {"version": 2}):
        (copy / "reward_scale.json").write_text(json.dumps(scale | change), encoding="utf-8")
        assert adapter_digest(copy) != before
        with pytest.raises(BaseModelError, match=r"reward_scale\.json"):
            attach(load_base(BaseConfig(source=str(tiny))), str(copy))


def test_each_head_weighs_the_prompts_anew_and_all_weights_have_mean_one(tiny: Path) -> None:
    base = load_base(BaseConfig(source=str(tiny)))
    rows = [preference_row(n // 2) | {"weight": 1.0 + n} for n in range(8)]
    log = EventWriter(tiny / "probe.jsonl")
    pairs = encode_pairs(base, rows, DataConfig(), log, "train")
    weights = row_weights(pairs, heads=4, seed=3)
    torch.testing.assert_close(weights.mean(0), torch.ones(4))
    assert torch.equal(weights, row_weights(pairs, heads=4, seed=3))
    assert not torch.equal(weights, row_weights(pairs, heads=4, seed=4))
    # pairs of one prompt are drawn together: their ratio is that of the rows' own weights
    torch.testing.assert_close(weights[1] / weights[0], torch.full((4,), 2.0))
    assert len({round(value, 6) for value in (weights[2] / weights[0]).tolist()}) == 4


def test_scores_that_are_all_equal_keep_their_deviation() -> None:
    head = ScoreHead(4, heads=1)
    head.normalise(torch.full((5, 1), 2.5), deviation=True)
    assert (head.scale.mean, head.scale.std) == (2.5, 1.0)
    assert head.combine(torch.tensor([[2.5], [3.5]])).tolist() == [0.0, 1.0]


def test_one_head_is_normalised_by_an_affine_map_of_what_stock_peft_gives() -> None:
    head = ScoreHead(4, heads=1)
    head.normalise(torch.tensor([[1.0], [3.0]]), deviation=True)  # mean 2, deviation 1
    assert (head.scale.centres, head.scale.mean, head.scale.std) == ((0.0,), 2.0, 1.0)
    head.normalise(torch.tensor([[0.0], [8.0]]), deviation=False)
    assert head.combine(torch.tensor([[0.0], [8.0]])).tolist() == [-4.0, 4.0]


def test_a_response_that_was_cut_is_normalised_apart_from_a_finished_one(
    ensemble: Path, tiny: Path
) -> None:
    # pad == EOS on this base: whoever looks for padding would score both alike
    base = load_base(BaseConfig(source=str(tiny)))
    head = attach(base, str(ensemble / "adapter"))
    row = preference_row(1) | {"rejected": assistant("yes indeed 1")}
    (pair,) = encode_pairs(
        base, [row], DataConfig(), EventWriter(ensemble / "probe.jsonl"), "train"
    )
    whole = pair.tree.branches[0]
    assert whole.tokens[-1] == base.eos_id == base.tokenizer.pad_token_id
    cut = type(whole)(whole.tokens[:-1])
    with base.use("reward"):
        scores = tree_scores(base, head, [Tree(pair.tree.prompt, (whole, cut))], PACKING)[0]
    assert abs(scores[0] - scores[1]).item() > 1e-3
