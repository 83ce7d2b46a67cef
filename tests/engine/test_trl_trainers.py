"""KTO, ORPO, GRPO, RLOO through TRL: each learns its task, stops anywhere, goes on exactly."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from trl.trainer import utils

from tests.engine.interrupting import terminated_in
from tests.engine.test_resume import killed_after
from tests.engine.tiny import assistant, events, make_run, result, save_words, user
from training.engine.__main__ import main
from training.engine.checkpoint import looks_pickled
from training.engine.config import from_dict
from training.engine.errors import ConfigError
from training.engine.metrics import METRICS
from training.engine.orpo import log_odds
from training.engine.trainers import WORDS

QUESTIONS = [f"q{n}" for n in range(16)]


def pair(question: str) -> dict[str, Any]:
    return {
        "id": question,
        "prompt": user(question),
        "chosen": assistant("yes yes"),
        "rejected": assistant("no no no"),
    }


PAIRS = [pair(question) for question in QUESTIONS[:10]]
HELD_OUT = [pair(question) for question in QUESTIONS[10:]]
PROMPTS = [{"id": question, "prompt": user(question)} for question in QUESTIONS[:6]]
WEIGHTS = "adapter/adapter_model.safetensors"
OFFLINE, ONLINE = ("kto", "orpo"), ("grpo", "rloo")
METHODS = (*OFFLINE, *ONLINE)
#: In an online run of 3 updates: 2 minibatches, gone through twice.
STEPS = {"kto": 6, "orpo": 6, "grpo": 12, "rloo": 12}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vocabulary = " ".join(["yes", "no", "well", "ah", *QUESTIONS])
    return save_words(
        tmp_path_factory.mktemp("models") / "words",
        words=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.08,
    )


@pytest.fixture(scope="module")
def reward_adapter(words: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs") / "reward"
    optim = {"lr": 1e-2, "batch_size": 4, "epochs": 4}
    config = {"method": "reward", "base": {"source": str(words)}, "optim": optim}
    make_run(folder, config, train=PAIRS)
    assert main(["run", str(folder)]) == 0
    return str(folder / "adapter")


def asked(method: str, words: Path, reward: str, **section: Any) -> dict[str, Any]:
    config: dict[str, Any] = {"method": method, "base": {"source": str(words)}, "threads": 1}
    config |= {"checkpoint_every": 1, "checkpoint_keep": 0}
    if method in OFFLINE:
        # KTO counts answers, of which a pair has two
        size = 8 if method == "kto" else 4
        config["optim"] = {"lr": 5e-3, "batch_size": size, "epochs": 2}
        return config | {method: section}
    config["optim"] = {"lr": 1e-2, "schedule": "constant"}
    online = {"reward_adapter": reward, "updates": 3, "prompts_per_update": 2, "epochs": 2}
    online |= {"samples_per_prompt": 4, "minibatch_size": 4, "max_new_tokens": 4, "beta": 0.02}
    return config | {method: {**online, "eval_prompts": 3, **section}}


def data(method: str) -> dict[str, list[dict[str, Any]]]:
    return {"prompts": PROMPTS} if method in ONLINE else {"train": PAIRS, "test": HELD_OUT}


def curve(folder: Path) -> dict[int, dict[str, float]]:
    return {e["step"]: e["values"] for e in events(folder) if e["kind"] == "metrics"}


@pytest.fixture(scope="module")
def whole(
    words: Path, reward_adapter: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A run of each method that nobody stopped, with a checkpoint at every step."""
    made = {}
    for method in METHODS:
        folder = tmp_path_factory.mktemp("runs") / method
        make_run(folder, asked(method, words, reward_adapter), **data(method))
        assert main(["run", str(folder)]) == 0, result(folder)["reason"]
        made[method] = folder
    return made


@pytest.mark.parametrize("method", METHODS)
def test_a_run_says_what_every_method_says(method: str, whole: dict[str, Path]) -> None:
    folder = whole[method]
    found = events(folder)
    (start,) = [e for e in found if e["kind"] == "start"]
    assert (start["method"], start["versions"]["trl"]) == (method, "1.16.0")
    phases = [e["name"] for e in found if e["kind"] == "phase"]
    assert phases[0] == "load"
    assert phases[-3:] == ["train", "evaluate", "save"]
    assert [e["step"] for e in found if e["kind"] == "checkpoint"] == [*range(1, STEPS[method] + 1)]
    named = {name for values in curve(folder).values() for name in values}
    assert named | set(result(folder)["metrics"]) <= set(METRICS)
    assert {"loss/train", "optim/lr", "optim/grad_norm"} <= named
    assert {e["kind"] for e in found} >= {"progress", "metrics", "end"}
    assert ("sample" in {e["kind"] for e in found}) == (method in ONLINE)
    saved = {path.name for path in (folder / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= saved
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in files if looks_pickled(path)]


def test_kto_parts_desirable_from_undesirable_answers(whole: dict[str, Path]) -> None:
    metrics = result(whole["kto"])["metrics"]
    assert metrics["dpo/margin_before"] == pytest.approx(0.0, abs=1e-5)
    assert metrics["dpo/margin_after"] > 0.3
    assert metrics["dpo/accuracy_after"] == 1.0
    first, *_, last = curve(whole["kto"]).values()
    assert first["loss/train"] == pytest.approx(0.5, abs=1e-5)
    assert last["loss/train"] < 0.5
    assert last["kto/margin"] > 0.1
    assert last["logps/chosen"] > first["logps/chosen"]


def test_orpo_makes_chosen_more_probable_than_rejected(whole: dict[str, Path]) -> None:
    metrics = result(whole["orpo"])["metrics"]
    assert metrics["orpo/log_odds_after"] > metrics["orpo/log_odds_before"] + 0.3
    first, *_, last = curve(whole["orpo"]).values()
    assert last["orpo/nll"] < first["orpo/nll"]
    assert last["orpo/log_odds"] > first["orpo/log_odds"]
    # Hong et al. 2024, equation 6, where all odds ratios of the batch are about the same
    term = 0.1 * torch.nn.functional.softplus(torch.tensor(-first["orpo/log_odds"])).item()
    assert first["loss/train"] == pytest.approx(first["orpo/nll"] + term, abs=0.02)


def test_log_odds_are_those_of_the_mean_probability_of_a_token() -> None:
    # odds 1/2 : 1/2 = 1 against 1/4 : 3/4 = 1/3
    probabilities = torch.tensor([[0.5, 0.25], [0.25, 0.25]])
    assert log_odds(probabilities.log()).tolist() == pytest.approx([math.log(3.0), 0.0])


@pytest.mark.parametrize("method", ONLINE)
def test_answers_come_to_score_higher(
    method: str, words: Path, reward_adapter: str, tmp_path: Path
) -> None:
    config = asked(method, words, reward_adapter, updates=10, samples_per_prompt=8, eval_prompts=6)
    config[method] |= {"minibatch_size": 16, "epochs": 1, "missing_eos_penalty": 0.0}
    folder = make_run(tmp_path / method, config | {"checkpoint_every": 0}, prompts=PROMPTS)
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    metrics = result(folder)["metrics"]
    assert metrics["kl/before"] == pytest.approx(0.0, abs=1e-4)
    assert metrics["kl/after"] > 0.0
    assert metrics["reward/mean_after"] > metrics["reward/mean_before"] + 0.3
    (sample, *_) = [e for e in events(folder) if e["kind"] == "sample"]
    assert sample["prompt_id"] in {row["id"] for row in PROMPTS}


# Going on ---------------------------------------------------------------------------------------


def expect_same(cut: Path, whole: Path) -> None:
    assert (cut / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert curve(cut) == curve(whole)
    assert result(cut)["metrics"] == result(whole)["metrics"]
    assert result(cut)["steps"] == result(whole)["steps"]


@pytest.mark.parametrize(
    ("method", "step"),
    # online, of 4 steps an update: inside one, behind its first pass, at its end
    [("kto", 3), ("orpo", 3), ("grpo", 5), ("grpo", 6), ("grpo", 8), ("rloo", 5), ("rloo", 8)],
)
def test_killed_between_two_steps_it_ends_the_same(
    method: str, step: int, whole: dict[str, Path], tmp_path: Path
) -> None:
    cut = killed_after(whole[method], step, tmp_path / "cut")
    assert main(["run", str(cut)]) == 0, result(cut)["reason"]
    assert [e["step"] for e in events(cut) if e["kind"] == "resumed"] == [step]
    expect_same(cut, whole[method])


@pytest.mark.parametrize("method", METHODS)
def test_a_signal_inside_a_pass_drops_the_step_and_ends_the_same(
    method: str, whole: dict[str, Path], tmp_path: Path
) -> None:
    cut = killed_after(whole[method], 2, tmp_path / "cut")
    # the first of two layers there, then the last: the signal is found on the way back
    for number in (1, 4):
        with terminated_in(number, LlamaDecoderLayer):
            assert main(["run", str(cut)]) == 75
    stops = [e["step"] for e in events(cut) if e["kind"] == "checkpoint"]
    assert max(stops) == 3, "the step that was begun was dropped"
    assert not (cut / "result.json").exists()
    assert main(["run", str(cut)]) == 0
    expect_same(cut, whole[method])


# What is not done -------------------------------------------------------------------------------


def refused(folder: Path, config: dict[str, Any], **rows: list[dict[str, Any]]) -> str:
    """Why a run was refused: not failed, and with no step taken."""
    make_run(folder, config, **rows)
    assert main(["run", str(folder)]) == 1
    found = result(folder)
    assert (found["status"], found["steps"], found["adapter"]) == ("refused", 0, None)
    return str(found["reason"])


@pytest.mark.parametrize("method", ONLINE)
@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "required keyword-only argument: 'reward_adapter'"),
        ({"reward_adapter": ""}, "reward_adapter is ''; allowed: a folder"),
        ({"reward_adapter": "r", "samples_per_prompt": 1}, "samples_per_prompt is 1"),
        ({"reward_adapter": "r", "minibatch_size": 3}, "a divisor of the 8 answers"),
        ({"reward_adapter": "r", "temperature": 0}, "temperature is 0"),
        ({"reward_adapter": "r", "gamma": 0.9}, "unknown fields: gamma"),
    ],
)
def test_online_settings_that_cannot_be_are_named(
    method: str, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict({"method": method, "base": {"source": "demo"}, method: section})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "kto", "optim": {"batch_size": 1}}, "batch_size is 1; allowed: 2 or more"),
        ({"method": "kto", "kto": {"desirable_weight": 0}}, "kto.desirable_weight is 0"),
        ({"method": "orpo", "orpo": {"beta": 0}}, "orpo.beta is 0"),
        ({"method": "orpo", "orpo": {"loss": "x"}}, "orpo has unknown fields: loss"),
        ({"method": "orpo", "adapter": {"dropout": 0.1}}, "adapter.dropout is 0.1"),
        ({"method": "grpo"}, "the section 'grpo' alone"),
        (
            {"method": "rloo", "rloo": {"reward_adapter": "r"}, "optim": {"max_steps": 3}},
            "RLOO has rloo.updates",
        ),
        (
            {"method": "grpo", "grpo": {"reward_adapter": "r", "loss": "ppo"}},
            "grpo.loss is 'ppo'; allowed: dapo, grpo, bnpo, dr_grpo",
        ),
    ],
)
def test_settings_that_cannot_be_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict({"base": {"source": "demo"}, **change})


def test_a_policy_is_no_reward_model(words: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    config = asked("grpo", words, str(whole["kto"] / "adapter"))
    reason = refused(tmp_path / "run", config, prompts=PROMPTS)
    assert "is not a reward adapter of this base: it has no score head" in reason


def test_rows_that_teach_nothing_are_refused_with_what_they_lack(
    words: Path, tmp_path: Path
) -> None:
    kto, orpo = asked("kto", words, ""), asked("orpo", words, "")
    label = {"id": "x", "prompt": user("q1"), "completion": assistant("yes"), "label": True}
    reason = refused(tmp_path / "one", kto, train=[label])
    assert "1 labelled answers are left, and KTO needs two" in reason
    reason = refused(tmp_path / "two", kto, train=[label, label | {"label": 1}])
    assert "labelled row 2 (x): it has neither chosen and rejected nor a label" in reason
    undecided = [pair("q1") | {"probability": 0.5}]
    reason = refused(tmp_path / "even", orpo, train=undecided)
    assert "no pair is left whose chosen response is more probably the better one" in reason


def test_kto_learns_from_bare_labels_beside_pairs_and_counts_what_it_takes(
    words: Path, tmp_path: Path
) -> None:
    labels = [
        {"id": q, "prompt": user(q), "completion": assistant("yes yes"), "label": True}
        for q in QUESTIONS[4:10]
    ]
    pairs = [pair(q) for q in QUESTIONS[:3]]
    soft = [pair("q3") | {"probability": 0.8}, pair("q4") | {"probability": 0.5}]
    config = asked("kto", words, "") | {"checkpoint_every": 0}
    config["optim"] |= {"batch_size": 13, "epochs": 1}  # 14 answers: the last joins the others
    folder = make_run(tmp_path / "run", config, train=[*labels, *pairs, *soft])
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    assert (result(folder)["rows"], result(folder)["steps"]) == (14, 1)
    warnings = {e["code"]: e["message"] for e in events(folder) if e["kind"] == "warning"}
    assert warnings["no_preference"].startswith("1 pairs left out")
    assert warnings["hard_labels"].startswith("1 pairs have")
    assert "10 desirable and 4 undesirable answers weigh as 2.5 to 1" in warnings["kto_weights"]


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(
    words: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    spoilt = tmp_path / "spoilt"
    shutil.copytree(whole["orpo"] / "adapter", spoilt)
    tensors = load_file(spoilt / "adapter_model.safetensors")
    save_file(
        {name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()},
        spoilt / "adapter_model.safetensors",
    )
    config = asked("orpo", words, "") | {"adapter": {"init_from": str(spoilt)}}
    assert "the loss of step 1 is nan" in refused(tmp_path / "run", config, train=PAIRS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU TRL's own width stays")
def test_trl_computes_logits_of_few_words_at_a_time(
    words: Path, reward_adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the width is a private name of TRL's: a version that calls it otherwise would not be narrowed
    widths: set[int] = set()
    fused = utils._ChunkedLogProbFunction
    apply = fused.apply

    def recording(*arguments: Any) -> Any:
        widths.add(arguments[5])
        return apply(*arguments)

    monkeypatch.setattr(fused, "apply", recording)
    config = asked("grpo", words, reward_adapter, updates=1, epochs=1)
    folder = make_run(tmp_path / "run", config, prompts=PROMPTS)
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    assert widths == {WORDS}


@pytest.mark.parametrize("method", ["kto", "grpo"])
def test_under_four_bits_the_adapter_keeps_fp32_and_goes_on_exactly(
    method: str, words: Path, reward_adapter: str, tmp_path: Path
) -> None:
    config = asked(method, words, reward_adapter)
    config["base"] |= {"quantization": "nf4"}
    whole = make_run(tmp_path / "whole", config, **data(method))
    assert main(["run", str(whole)]) == 0, result(whole)["reason"]
    (start,) = [e for e in events(whole) if e["kind"] == "start"]
    assert start["layers_4bit"] >= 14
    saved = load_file(whole / WEIGHTS)
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    cut = killed_after(whole, 3, tmp_path / "cut")
    assert main(["run", str(cut)]) == 0, result(cut)["reason"]
    expect_same(cut, whole)


def test_answers_are_the_same_under_gradient_checkpointing(
    words: Path, whole: dict[str, Path], reward_adapter: str, tmp_path: Path
) -> None:
    config = asked("grpo", words, reward_adapter) | {"gradient_checkpointing": True}
    folder = make_run(tmp_path / "run", config, prompts=PROMPTS)
    assert main(["run", str(folder)]) == 0, result(folder)["reason"]
    before = curve(whole["grpo"])
    for step, values in curve(folder).items():
        assert values == pytest.approx(before[step], rel=1e-3, abs=1e-4)
