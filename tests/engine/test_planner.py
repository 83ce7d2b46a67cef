"""What a run will need: the numbers by hand, what makes it fit, and the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from training.engine.__main__ import main
from training.engine.config import METHODS, from_dict
from training.engine.errors import BaseModelError, ConfigError, RunFolderError
from training.engine.packaged import PACKAGED
from training.engine.planner import Lengths, Plan, changed, plan, with_settings
from training.engine.planner_calibrate import Calibration, Surroundings, calibrate, table
from training.engine.planner_check import Row, failed, markdown, rows
from training.engine.planner_memory import (
    RUNTIME,
    Layout,
    constant_bytes,
    moment_bytes,
    weight_bytes,
)
from training.engine.planner_shapes import shape_of
from training.engine.planner_time import forward_flops, head_flops, trained_flops

SMALL = {
    "model_type": "llama", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}  # fmt: skip
SHAPE = shape_of(SMALL)
#: 2 · (64·64 + 2·64·32 + 64·64 + 3·64·128) linear weights, 100·64 embeddings, 5·64 of norms.
LINEAR, OTHERS = 73_728, 6_720
DEMO = PACKAGED["demo"].config
SMOLLM2 = shape_of(DEMO)
REWARDED: dict[str, Any] = {"reward_adapter": "reward"}


def config(method: str = "sft", **more: Any) -> Any:
    needs = {
        "ppo": REWARDED, "grpo": REWARDED, "rloo": REWARDED, "evaluate": {"policy_adapter": "p"},
    }  # fmt: skip
    data: dict[str, Any] = {"method": method, "base": {"source": "base"}}
    if method in needs:
        data[method] = dict(needs[method])
    return from_dict(with_settings(data, more))


def terms(found: Plan) -> dict[str, int]:
    return {term.name: term.bytes for term in found.terms}


def test_parts_of_a_small_run_are_what_they_are_by_hand() -> None:
    found = plan(config(row_budget=64), SHAPE, None, lengths=Lengths(longest=32))
    assert (found.parameters, found.tokens) == (LINEAR + OTHERS, 64)
    # r=16 on q (64 + 64) and v (64 + 32), two layers
    assert found.trained == 2 * 16 * (128 + 96) == 7_168
    parts = terms(found)
    assert parts["weights"] == 4 * (LINEAR + OTHERS)
    assert parts["adapters"] == parts["gradients"] == 4 * 7_168
    assert parts["optimizer"] == 8 * 7_168
    # a block, per token in fp32: two norms (4·64 + 4), q, k, v and output (4 · 64 · 4, and 4 heads'
    # sums), gate and up (2 · 128 · 4), the input of q and v (64 · 4), twice r (16 · 4)
    block = 2 * 260 + 1024 + 16 + 1024 + 256 + 128
    # last norm, last states, states of scored tokens and their gradient (4 · 64 · 4), the mask,
    # boolean (64) and as numbers (64 · 4)
    assert parts["activations"] == 64 * (2 * block + 4 * 256 + 5 * 64)
    # gradients of the widest part of a block: 3 · 128 + 2 · 64
    assert parts["working memory"] == 64 * 4 * 512
    whole = sum(parts.values()) - parts["runtime"]
    assert parts["runtime"] == round(RUNTIME * whole)
    assert found.total_bytes == whole + parts["runtime"] == found.phases[found.phase]


def test_a_chunk_of_logits_is_what_the_head_needs() -> None:
    found = plan(config(), SMOLLM2, None, lengths=Lengths(longest=16, row=256))
    # at the head: 128 tokens of 49,152 words, fp32 and logsumexp's copy
    assert found.phase == "pass: head"
    assert terms(found)["logits"] == 128 * 49_152 * 8


def test_quantized_weights_are_counted_with_their_scales() -> None:
    double, single = Layout(held="nf4"), Layout(held="nf4", double_quant=False)
    assert weight_bytes(SHAPE, double) == LINEAR // 2 + 4 * OTHERS
    blocks = LINEAR // 64
    assert constant_bytes(SHAPE, single) == 4 * blocks
    assert constant_bytes(SHAPE, double) == blocks + 4 * -(-blocks // 256)
    # int8: a scale for each output
    assert constant_bytes(SHAPE, Layout(held="int8")) == 2 * 4 * (64 + 32 + 32 + 64 + 128 * 2 + 64)


def test_eight_bit_moments_are_for_tensors_of_4096_values_and_more() -> None:
    # A of q: 64 · 64 = 4,096 values in 8 bits, 16 scales; of v likewise; B of v: 64 · 32 in fp32
    layout = Layout(r=64, optimizer="adamw_8bit")
    big, small = 2 * (4096 + 16 * 4), 2 * 4 * 64 * 32
    assert moment_bytes(SHAPE, layout) == 2 * (3 * big + small)


def test_paged_moments_are_the_processors() -> None:
    full = {"tuning": "full"}
    plain = plan(config(**full), SMOLLM2, None)
    paged = plan(config(**full, **{"optim.optimizer": "paged_adamw"}), SMOLLM2, None)
    assert plain.host_bytes == 0
    assert paged.host_bytes == 8 * SMOLLM2.parameters
    assert "optimizer" not in terms(paged)


def test_full_tuning_needs_four_times_the_weights_at_least() -> None:
    found = plan(config(tuning="full"), SMOLLM2, None)
    assert found.trained == SMOLLM2.parameters
    assert found.total_bytes > 4 * 4 * SMOLLM2.parameters


def test_a_reward_model_trains_no_language_model_head() -> None:
    untied = shape_of({**SMALL, "tie_word_embeddings": False})
    found = plan(config("reward", tuning="full", **{"reward.ensemble": 4}), untied, None)
    assert found.trained == LINEAR + OTHERS + 4 * 64
    assert "logits" not in terms(found)


def test_recomputing_keeps_a_blocks_input_only() -> None:
    plain = plan(config(), SMOLLM2, None)
    recomputed = plan(config(gradient_checkpointing=True), SMOLLM2, None)
    assert recomputed.total_bytes < plain.total_bytes / 2
    assert recomputed.time.flops_per_step > 1.2 * plain.time.flops_per_step


def test_memory_grows_with_the_square_of_a_packed_row() -> None:
    """The row's mask does, boolean and as numbers."""

    def activations(row: int) -> int:
        return terms(plan(config(), SMOLLM2, None, lengths=Lengths(longest=64, row=row)))[
            "activations"
        ]

    linear_part = 2 * activations(1024) - activations(2048)
    assert activations(2048) - 2 * activations(1024) == 2 * 1024**2 * (4 + 1)
    assert linear_part < activations(1024)


def test_ppo_counts_its_adapters_and_its_answers() -> None:
    shared = plan(config("ppo"), SMOLLM2, None)
    own = plan(config("ppo", **{"ppo.value": "own_adapter"}), SMOLLM2, None)
    adapter = SMOLLM2.adapter(("q_proj", "v_proj"), 16)
    assert shared.trained == adapter + 576
    assert own.trained == 2 * adapter + 576
    # 16 prompts are measured: 16 rows of 512 + 48 + 32 tokens, 46,080 bytes each
    assert shared.phases["rollout"] > (16 * 592 * 46_080 + 4 * SMOLLM2.parameters)
    begun = plan(config("ppo", **{"adapter.init_from": "sft"}), SMOLLM2, None)
    assert begun.phases["step"] - shared.phases["step"] == pytest.approx(
        4 * adapter * (1 + RUNTIME), abs=2
    )


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"answer", "compare"}))
def test_every_method_has_a_plan(method: str) -> None:
    for device in ("gpu", "cpu"):
        found = plan(config(method), SMOLLM2, 10**9, device=device)
        assert found.total_bytes > 4 * SMOLLM2.parameters
        assert found.fits == (found.total_bytes <= 10**9)
        assert found.total_bytes == max(found.phases.values()) == sum(terms(found).values())
        again = json.loads(json.dumps(found.as_json()))
        assert again["total_bytes"] == found.total_bytes
        assert (again["change"] is None) == (found.change is None)


def test_what_answers_questions_is_planned_as_sampling() -> None:
    with pytest.raises(ConfigError, match="plan a sample run of the same base"):
        plan(config("answer"), SMOLLM2, 10**9)


def test_what_is_known_of_the_rows_replaces_the_bounds() -> None:
    bound, known = plan(config("dpo"), SMOLLM2, None), Lengths(longest=120, mean=80.0, rows=100)
    found = plan(config("dpo"), SMOLLM2, None, lengths=known)
    assert (bound.tokens, found.tokens) == (2048, 480)
    assert found.total_bytes < bound.total_bytes
    assert (found.time.steps, found.time.tokens_per_step) == (25, 320)
    assert any("rows were not read" in note for note in bound.notes)
    assert not found.notes


def test_a_processor_holds_the_file_while_it_is_quantized() -> None:
    asked = {"base.quantization": "nf4"}
    found = plan(
        config("sample", **asked), SMOLLM2, None, device="cpu", lengths=Lengths(prompt=16, rows=1)
    )
    held = Layout(held="nf4", tuning="none")
    loaded = 4 * SMOLLM2.parameters + weight_bytes(SMOLLM2, held) + constant_bytes(SMOLLM2, held)
    assert found.phases["loading"] == pytest.approx(loaded * (1 + RUNTIME), abs=2)


def test_the_mildest_single_change_is_proposed() -> None:
    found = plan(config(), SMOLLM2, None)
    halved = plan(config(row_budget=1024), SMOLLM2, None, lengths=Lengths(longest=500))
    known = Lengths(longest=500)
    start = plan(config(), SMOLLM2, halved.total_bytes, lengths=known)
    assert start.fits is False
    assert start.change is not None
    assert start.change.settings == {"row_budget": 1024}
    assert start.change.total_bytes == halved.total_bytes
    assert found.fits is None


def test_a_change_that_saves_nothing_is_passed_over() -> None:
    """A longer text goes through whole, whatever the row's budget."""
    known = Lengths(longest=2048)
    asked = config("dpo")
    half = plan(asked, SMOLLM2, None, lengths=known).total_bytes // 2
    found = plan(asked, SMOLLM2, half, lengths=known)
    assert found.change is not None
    assert found.change.settings == {"gradient_checkpointing": True}
    assert [c.settings for c in found.tried][:2] == [{"row_budget": 1024}, {"row_budget": 512}]


def test_changes_are_added_up_and_needless_ones_taken_back() -> None:
    llama = shape_of({**DEMO, "vocab_size": 128256, "hidden_size": 4096,
                      "intermediate_size": 14336, "num_hidden_layers": 32,
                      "num_attention_heads": 32, "num_key_value_heads": 8,
                      "tie_word_embeddings": False})  # fmt: skip
    found = plan(config("dpo"), llama, 24 * 10**9)
    assert found.change is not None
    assert found.change.fits
    assert found.change.settings == {"gradient_checkpointing": True, "base.dtype": "bfloat16"}
    for name in found.change.settings:
        rest = {k: v for k, v in found.change.settings.items() if k != name}
        assert plan(config("dpo", **rest), llama, 24 * 10**9).fits is False


def test_ppo_that_writes_too_many_answers_writes_fewer() -> None:
    many = {"ppo.episodes_per_update": 128, "ppo.eval_prompts": 64, "ppo.max_new_tokens": 512}
    many |= {"gradient_checkpointing": True, "row_budget": 64, "ppo.minibatch_size": 1}
    asked = config("ppo", **many, **{"base.dtype": "bfloat16", "base.quantization": "nf4"})
    whole = plan(asked, SMOLLM2, None)
    assert whole.phase == "rollout"
    found = plan(asked, SMOLLM2, int(0.7 * whole.total_bytes))
    assert found.change is not None
    assert found.change.settings == {"ppo.episodes_per_update": 16, "ppo.eval_prompts": 16}
    assert not found.change.same_result
    assert "Each update learns from fewer" in found.change.why[0]
    # the measurement alone asks for more than 32 at once: nothing is taken from the updates
    few = changed(asked, {"ppo.episodes_per_update": 8})
    assert few is not None
    measured = plan(few, SMOLLM2, int(0.7 * whole.total_bytes)).change
    assert measured is not None
    assert measured.settings == {"ppo.eval_prompts": 8}


def test_a_base_with_an_adapter_stays_as_it_is() -> None:
    for asked in (config("dpo", **{"adapter.init_from": "/a"}), config("evaluate")):
        tried = plan(asked, SMOLLM2, 10**6).tried
        assert tried
        assert not [change for change in tried if "base.quantization" in change.settings]
    fresh = plan(config("dpo"), SMOLLM2, 10**6).tried
    assert [change for change in fresh if "base.quantization" in change.settings]


def test_full_tuning_that_is_too_large_becomes_an_adapter() -> None:
    found = plan(config(tuning="full"), SMOLLM2, 10**9)
    assert found.change is not None
    assert found.change.settings["tuning"] == "lora"


def test_nothing_is_promised_where_nothing_helps() -> None:
    found = plan(config(), SMOLLM2, 10**6)
    assert found.change is None
    assert found.tried
    assert not any(change.fits for change in found.tried)


def test_an_encoder_is_refused_where_text_is_written() -> None:
    bert = shape_of({"model_type": "bert", "vocab_size": 100, "hidden_size": 64,
                     "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
                     "max_position_embeddings": 64})  # fmt: skip
    with pytest.raises(BaseModelError, match="bert is an encoder"):
        plan(config("dpo"), bert, None)
    with pytest.raises(BaseModelError, match="q_proj, v_proj, which a bert has not"):
        plan(config("reward"), bert, None)
    assert plan(config("reward", tuning="full"), bert, None).trained == bert.parameters + 64


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="device is 'tpu'"):
        plan(config(), SHAPE, None, device="tpu")


def test_operations_are_counted_by_hand() -> None:
    # 10 tokens, each compared with 5: twice the weights, and 4 · 2 layers · 5 · 64
    forward = 10 * (2 * LINEAR + 4 * 2 * 5 * 64)
    assert forward_flops(SHAPE, 10, 5) == forward
    assert head_flops(SHAPE) == 2 * 100 * 64
    assert forward_flops(SHAPE, 10, 5, 3) == forward + 3 * 12_800
    lora = trained_flops(SHAPE, 10, 5, 0, full=False, recomputed=False)
    full = trained_flops(SHAPE, 10, 5, 0, full=True, recomputed=False)
    # a frozen base: 2 N forward, 2 N back; a trained one 2 N and 4 N; recomputing: 2 N more
    assert (lora, full) == (2 * forward, 3 * forward)
    assert trained_flops(SHAPE, 10, 5, 0, full=True, recomputed=True) == 4 * forward


def test_time_needs_a_rate_and_the_number_of_rows() -> None:
    known = Lengths(longest=100, mean=50.0, rows=8)
    assert plan(config(), SMOLLM2, None, lengths=known).time.seconds is None
    asked = config(**{"optim.epochs": 3})
    time = plan(asked, SMOLLM2, None, lengths=known, flops_per_s=1e12).time
    assert time.steps == 6
    assert time.seconds == pytest.approx(6 * time.flops_per_step / 1e12)
    stopped = config(**{"optim.epochs": 3, "optim.max_steps": 4})
    assert plan(stopped, SMOLLM2, None, lengths=known, flops_per_s=1e12).time.steps == 4


def test_answers_take_as_long_as_reading_the_weights() -> None:
    slow = {"flops_per_s": 1e15, "bytes_per_s": 1e9}
    time = plan(config("ppo"), SMOLLM2, None, **slow).time
    # 8 answers fit one batch: 48 turns over all weights
    assert time.decoding_bytes_per_step == 48 * 4 * SMOLLM2.parameters
    assert time.seconds_per_step == pytest.approx(48 * 4 * SMOLLM2.parameters / 1e9, rel=0.05)
    assert "lower bound" in plan(config("ppo"), SMOLLM2, None, flops_per_s=1e15).time.note


def test_every_figure_that_follows_by_counting_agrees() -> None:
    found = rows()
    assert [row.case for row in found if not row.may_miss and not row.passed] == []
    assert not failed(found)
    exact = {row.case: row for row in found}
    assert exact["Qwen3-0.6B, r=16 on q, v"].got == 2_293_760
    assert exact["LoRA r=16 on 4096 × 4096"].got == 131_072


def test_peaks_are_within_a_quarter_but_for_the_known_misses() -> None:
    missed = [row.case for row in rows() if row.kind in ("peak", "own") and not row.passed]
    assert missed == [
        "Llama2-7B QLoRA",
        "Llama-3.1-405B QLoRA, each of 8",
        "Llama2-7B QLoRA, loaded",
        "grpo, fp32, LoRA",
    ]
    assert all(row.remark for row in rows() if not row.passed)


def test_the_page_shows_the_check_as_it_is() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "reference" / "memory-planner.md"
    assert markdown(rows()) in page.read_text(encoding="utf-8")


def test_a_wrong_figure_fails_the_check() -> None:
    good = Row("exact", "a", 3.60, 3.6041, "GiB", "", 2)
    assert good.passed
    assert failed([good, Row("exact", "b", 3.60, 3.6051, "GiB", "", 2)])
    assert failed([Row("most", "c", 48.0, 48.1, "GB", "")])
    assert failed([Row("least", "d", 4.0, 3.9, "times", "")])
    assert not failed([Row("peak", "e", 1.0, 2.0, "GB", "")])
    assert failed([Row("own", "f", 1.0, 1.3, "GB", "")])
    assert not failed([Row("own", "f", 1.0, 1.3, "GB", "", remark="known")])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    file = tmp_path / "model.json"
    file.write_text(json.dumps(SMALL), encoding="utf-8")
    return file


def test_the_command_prints_a_plan(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--base", str(base), "--method", "dpo", "--longest", "99"]
    assert main([*arguments, "--device-gb", "1", "--rows", "8", "--tflops", "1"]) == 0
    shown = capsys.readouterr().out
    for word in ("weights", "activations", "runtime", "fits in 1.0 GB", "2 steps", "phases"):
        assert word in shown
    assert main([*arguments, "--device-gb", "0.003", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is False
    assert found["change"]["fits"]


def test_the_command_plans_a_runs_config(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "config.json"
    run.write_text(json.dumps({"method": "sft", "base": {"source": "demo"}}), encoding="utf-8")
    assert main(["plan", "--config", str(run)]) == 0
    assert "134,515,008 parameters" in capsys.readouterr().out
    assert main(["plan", "--config", str(run), "--base", str(base)]) == 0
    assert "80,448 parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "plan needs --config RUN_CONFIG, or --base"),
        (["--base", "BASE"], "plan needs"),
        (["--base", "BASE", "--method", "sft", "--set", "x"], "give NAME=VALUE"),
        (["--base", "BASE", "--method", "sft", "--set", "row_budget=1"], "row_budget is 1"),
        (["--base", "BASE", "--method", "sft", "--set", "bogus=1"], "unknown fields: bogus"),
        (["--base", "BASE", "--method", "sft", "--device-gb", "-1"], "--device-gb is -1.0"),
        (["--base", "BASE", "--method", "sft", "--tflops", "nan"], "--tflops is nan"),
        (["--base", "no/such", "--method", "sft"], "No such file"),
        (["--config", "no/such"], "No such file"),
        (["--config", "BASE"], "unknown fields"),
        (["--calibrate", "no/such"], "is no/such a finished run?"),
    ],
)
def test_the_command_says_what_is_wrong(
    arguments: list[str], words: str, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *(str(base) if a == "BASE" else a for a in arguments)]) == 1
    assert words in capsys.readouterr().err


def test_the_check_prints_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--check"]) == 0
    shown = capsys.readouterr().out
    assert "2,293,760" in shown
    assert "MISS" in shown
    assert "FAIL" not in shown
    assert main(["plan", "--check", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(rows())


def test_planning_needs_no_torch() -> None:
    check = (
        "import sys\nimport training.engine.planner, training.engine.planner_calibrate\n"
        "from training.engine.__main__ import main\n"
        "assert main(['plan', '--check']) == 0\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


def finished(folder: Path, *, peak_mb: float, status: str = "done", device: str = "cpu") -> Path:
    attempt = folder / "attempts" / "one"
    attempt.mkdir(parents=True)
    run = {"method": "sft", "base": {"source": "demo"}}
    (folder / "config.json").write_text(json.dumps(run), encoding="utf-8")
    result = {
        "status": status,
        "method": "sft",
        "peak_mb": peak_mb,
        "attempt": "one",
        "seconds": 10.0,
    }
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    begun = {"kind": "start", "device": device}
    (attempt / "events.jsonl").write_text(json.dumps(begun) + "\n", encoding="utf-8")
    return folder


AROUND = Surroundings(imports_mb=400.0, lengths=Lengths(longest=100, row=256, rows=4))


def test_a_finished_run_is_compared_above_its_imports(tmp_path: Path) -> None:
    found = calibrate(finished(tmp_path / "run", peak_mb=1300.0), known=AROUND)
    planned = plan(config(), SMOLLM2, None, lengths=AROUND.lengths, device="cpu")
    assert (found.measured_mb, found.imports_mb, found.tokens) == (900.0, 400.0, 256)
    assert found.predicted_mb == planned.total_bytes / 2**20
    assert found.error == found.predicted_mb / 900.0 - 1.0
    assert "1 runs, " in table([found])
    # 4 rows are one step, and took 10 s
    assert found.tflops == pytest.approx(planned.time.flops_per_step / 10.0 / 1e12)


def test_a_gpus_peak_holds_no_imports(tmp_path: Path) -> None:
    found = calibrate(finished(tmp_path / "run", peak_mb=1300.0, device="cuda:0"), known=AROUND)
    assert (found.device, found.measured_mb, found.imports_mb) == ("gpu", 1300.0, 0.0)


@pytest.mark.parametrize(
    ("peak_mb", "status", "words"),
    [(1300.0, "failed", "did not come to its end"), (300.0, "done", "calibrate where it ran")],
)
def test_a_run_that_tells_nothing_is_refused(
    peak_mb: float, status: str, words: str, tmp_path: Path
) -> None:
    folder = finished(tmp_path / "run", peak_mb=peak_mb, status=status)
    with pytest.raises(RunFolderError, match=words):
        calibrate(folder, known=AROUND)


def test_runs_that_are_off_are_named() -> None:
    near, far = (
        Calibration(run=name, method="sft", device="cpu", imports_mb=400.0, measured_mb=1000.0,
                    predicted_mb=planned, phase="step", tokens=10)
        for name, planned in (("near", 1150.0), ("far", 1250.0))
    )  # fmt: skip
    assert "2 runs, 1 off by more than 20%: far" in table([near, far])
