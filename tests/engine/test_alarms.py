"""Every alarm rings at the step its rule says, once, and the same after a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine.test_resume import killed_after
from tests.engine.tiny import events, make_run, preference_row, result, user
from training.engine.__main__ import main
from training.engine.alarm_settings import ALARMS, ALARMS_OF, AlarmsConfig
from training.engine.alarms import RULES, WATCHED, Alarms, held_out_due
from training.engine.config import from_dict
from training.engine.errors import ConfigError
from training.engine.held_out import wilson_low
from training.engine.metrics import METRICS

#: name: (method, metric, a curve, the 1-based point at which it rings, value, threshold)
CASES: dict[str, tuple[str, str, list[float], int, float, float]] = {
    # means of three: 16, 18, 21.3
    "kl_budget": ("ppo", "kl/to_reference", [10, 18, 20, 16, 28], 5, 64 / 3, 20.0),
    # first mean 10, bound 20; means of three from point 6 on: 16, 22
    "length_drift": ("ppo", "length/mean", [10, 10, 10, 14, 16, 18, 32], 7, 22.0, 20.0),
    # first mean 0.9, bound 0.6; means 0.6 and then 0.5
    "eos_rate": ("ppo", "eos/rate", [0.9, 0.9, 0.9, 0.7, 0.6, 0.6, 0.3], 7, 0.5, 0.6),
    # first mean 2, floor 0.6; means 1.0, 0.5
    "entropy_floor": ("ppo", "entropy", [2, 2, 2, 2, 0.5, 0.5, 0.5], 7, 0.5, 0.6),
    "clip_fraction": ("ppo", "clip/fraction", [0.0, 0.3, 0.3, 0.3, 0.6], 5, 0.4, 0.3),
    "chosen_falling": ("dpo", "logps/chosen_change", [0, -0.3, -0.3, -0.6], 4, -0.4, -0.3),
    # the first ten have the median 1; a lone spike (the 12th) is no explosion, three are
    "grad_norm": ("sft", "optim/grad_norm", [1.0] * 11 + [99, 1, 1, 30, 20], 16, 20.0, 10.0),
}


def rung(alarms: Alarms, curves: list[dict[str, float]]) -> list[Any]:
    return [a for step, point in enumerate(curves, 1) for a in alarms.see(step, point)]


@pytest.mark.parametrize("name", CASES)
def test_an_alarm_rings_once_and_where_its_rule_is_broken(name: str) -> None:
    method, metric, curve, at, value, threshold = CASES[name]
    alarms = Alarms(AlarmsConfig(), method)
    (found,) = rung(alarms, [{metric: each} for each in [*curve, curve[-1], curve[-1]]])
    assert (found.name, found.action, found.metric, found.step) == (name, "warn", metric, at)
    assert found.value == pytest.approx(value)
    assert found.threshold == pytest.approx(threshold)
    # the window judged the weights after at - 3, at - 2 and at - 1 points
    assert found.good_until == at - 4
    assert found.remedy.endswith(".")
    assert metric in METRICS


@pytest.mark.parametrize("name", CASES)
def test_an_alarm_that_is_off_and_a_curve_that_stays_are_silent(name: str) -> None:
    method, metric, curve, *_ = CASES[name]
    off = Alarms(AlarmsConfig(**{name: "off"}), method)
    assert not rung(off, [{metric: each} for each in curve])
    steady = Alarms(AlarmsConfig(), method)
    assert not rung(steady, [{metric: curve[0]} for _ in range(40)])


def test_a_shorter_answer_drifts_too_and_names_the_lower_bound() -> None:
    alarms = Alarms(AlarmsConfig(window=1), "ppo")
    (found,) = rung(alarms, [{"length/mean": 40.0}, {"length/mean": 19.0}])
    assert (found.threshold, found.good_until) == (20.0, 0)


def test_what_is_not_a_number_rings_at_once_and_is_named() -> None:
    alarms = Alarms(AlarmsConfig(not_finite="stop"), "sft")
    (found,) = alarms.see(1, {"loss/train": float("nan"), "optim/lr": 1.0})
    assert found.metric == "loss/train"
    assert json.dumps(found.__dict__, allow_nan=False)
    assert alarms.stopping == found


def held_out(accuracy: float, low: float, reward: float) -> dict[str, float]:
    return {"held_out/accuracy": accuracy, "held_out/accuracy_low": low, "reward/mean": reward}


@pytest.mark.parametrize(
    ("later", "rings"),
    [
        (held_out(0.55, 0.4, 2.0), True),  # below the best one's interval, and the reward rose
        (held_out(0.65, 0.5, 2.0), False),  # within the interval of the best: may be chance
        (held_out(0.55, 0.4, 0.5), False),  # the reward fell too: another trouble
    ],
)
def test_reward_that_rises_while_human_accuracy_falls(later: dict[str, float], rings: bool) -> None:
    alarms = Alarms(AlarmsConfig(window=1), "ppo")
    curve = [{"reward/mean": 0.0}, held_out(0.8, 0.6, 1.0), held_out(0.7, 0.5, 1.5), later]
    found = rung(alarms, curve)
    assert [each.name for each in found] == (["over_optimisation"] if rings else [])
    if rings:
        # the best was measured on the weights after one point
        assert (found[0].good_until, found[0].threshold, found[0].value) == (1, 0.6, 0.55)


def test_its_state_survives_json_anywhere() -> None:
    method, metric, curve, at, *_ = CASES["length_drift"]
    points = [{metric: each, "reward/mean": each} for each in curve]
    points[2] |= {"held_out/accuracy": 0.8, "held_out/accuracy_low": 0.6}
    whole = Alarms(AlarmsConfig(), method)
    expected = rung(whole, points)
    assert [each.step for each in expected] == [at]
    for cut in range(1, len(points)):
        first = Alarms(AlarmsConfig(), method)
        before = rung(first, points[:cut])
        second = Alarms(AlarmsConfig(), method)
        second.restore(json.loads(json.dumps(first.state())))
        after = [a for n, p in enumerate(points[cut:], cut + 1) for a in second.see(n, p)]
        assert before + after == expected
        assert second.state() == whole.state()


def test_held_out_rows_are_measured_where_two_parts_meet() -> None:
    assert held_out_due(total=8, parts=4) == {2, 4, 6}
    assert held_out_due(total=3, parts=4) == {1, 2}
    assert held_out_due(total=1, parts=4) == set()
    # Wilson 1927 for 32 of 32: n / (n + z²)
    assert wilson_low(1.0, 32) == pytest.approx(32 / (32 + 1.96**2))


@pytest.mark.parametrize(
    ("method", "alarms", "words"),
    [
        ("dpo", {"grad_norm": "loud"}, "off, warn, stop"),
        ("dpo", {"kl_budget": "stop"}, "dpo does not report"),
        ("dpo", {"eos_rate_fall": 1.5}, "alarms.eos_rate_fall"),
        ("dpo", {"window": 0}, "alarms.window"),
        ("dpo", {"over_optimisation": "stop", "over_optimisation_rows": 0}, "no held-out row"),
        ("evaluate", {"window": 5}, "trains nothing"),
        ("dpo", {"bogus": 1}, "bogus"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    method: str, alarms: dict[str, Any], words: str
) -> None:
    section = {"evaluate": {"reward_adapter": "x"}} if method == "evaluate" else {}
    with pytest.raises(ConfigError, match=words):
        from_dict({"method": method, "base": {"source": "x"}, "alarms": alarms, **section})


def test_every_alarm_is_known_everywhere() -> None:
    assert set(RULES) == set(ALARMS)
    assert {name for names in ALARMS_OF.values() for name in names} == set(ALARMS)
    assert set(WATCHED) <= set(METRICS)
    page = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "read-the-alarms.md"
    text = page.read_text(encoding="utf-8")
    defaults = AlarmsConfig()
    for name in ALARMS:
        assert f"## {name}" in text
    for name, value in vars(defaults).items():
        if name not in ALARMS:
            assert f"`{name}` ({value:g})" in text, name


PAIRS = [preference_row(n) for n in range(10)]
#: Responses that differ in their last word: their margin rises while PAIRS' order is unlearnt.
SHARED = [
    preference_row(n, good="well I think that it may be so", bad="well I think that it may be no")
    for n in range(10)
]
OPTIM = {"lr": 2e-2, "batch_size": 2, "epochs": 2, "warmup_ratio": 0.0, "schedule": "constant"}
WEIGHTS = "adapter/adapter_model.safetensors"


def asked(method: str, tiny: Path, alarms: dict[str, Any], **more: Any) -> dict[str, Any]:
    config = {"method": method, "base": {"source": str(tiny)}, "optim": OPTIM, "alarms": alarms}
    return config | {"threads": 1, "checkpoint_every": 1, "checkpoint_keep": 0} | more


def alarms_in(folder: Path) -> list[dict[str, Any]]:
    """The alarms of all attempts, each once."""
    found = []
    for event in events(folder):
        body = {k: v for k, v in event.items() if k not in ("seq", "at", "kind")}
        if event["kind"] == "alarm" and body not in found:
            found.append(body)
    return found


def curve(folder: Path) -> dict[int, dict[str, float]]:
    return {e["step"]: e["values"] for e in events(folder) if e["kind"] == "metrics"}


def test_a_stop_keeps_the_best_measured_weights_and_resumes_to_the_same(
    tiny: Path, tmp_path: Path
) -> None:
    settings = {"window": 1, "over_optimisation": "stop", "over_optimisation_points": 5}
    whole = make_run(tmp_path / "whole", asked("dpo", tiny, settings), train=SHARED, test=PAIRS[:4])
    assert main(["run", str(whole)]) == 0
    found, (alarm,) = result(whole), alarms_in(whole)
    assert (found["status"], found["cause"], alarm["name"]) == ("done", None, "over_optimisation")
    kept = found["steps"]
    assert found["stopped"] == {**alarm, "kept_step": kept}
    assert found["alarms"] == [alarm]
    assert alarm["remedy"] in found["reason"]
    assert max(curve(whole)) == alarm["step"] < 10  # it ended there
    # a point's figures are of the weights before it
    measured = {
        s: v["held_out/accuracy"] for s, v in curve(whole).items() if "held_out/accuracy" in v
    }
    assert measured[kept + 1] == max(measured.values()) > alarm["value"] == measured[alarm["step"]]
    # what is kept is what a run makes that ends there
    shorter = asked("dpo", tiny, settings, optim=OPTIM | {"max_steps": kept})
    short = make_run(tmp_path / "short", shorter, train=SHARED, test=PAIRS[:4])
    assert main(["run", str(short)]) == 0
    assert result(short)["stopped"] is None
    assert (short / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert result(short)["metrics"] == found["metrics"]  # measured on what is kept
    # a run that was cut right behind what is kept, or long after it, ends the same
    for step in (kept, alarm["step"] - 1):
        cut = killed_after(whole, step, tmp_path / f"cut-{step}")
        assert main(["run", str(cut)]) == 0
        assert curve(cut) == curve(whole)
        assert alarms_in(cut) == [alarm]
        assert {**result(cut), "attempt": ""}["stopped"] == found["stopped"]
        assert (cut / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_ppo_stops_at_its_budget_also_when_cut_inside_an_update(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = make_run(tmp_path / "reward", asked("reward", tiny, {}), train=PAIRS)
    assert main(["run", str(scorer)]) == 0
    section = {
        "reward_adapter": str(scorer / "adapter"), "updates": 5, "episodes_per_update": 4,
        "minibatch_size": 2, "epochs": 2, "max_new_tokens": 6, "eval_prompts": 3,
    }  # fmt: skip
    files = {
        "prompts": [{"id": str(n), "prompt": user(f"Question number {n}?")} for n in range(6)],
        "test": PAIRS[:4],
    }
    optim = {"lr": 2e-2, "schedule": "constant"}
    settings = {"window": 1, "clip_fraction": "off", "kl_budget": "stop", "kl_budget_nats": 2.0}
    config = asked("ppo", tiny, settings, ppo=section, optim=optim)
    whole = make_run(tmp_path / "whole", config, **files)
    assert main(["run", str(whole)]) == 0
    found, (alarm,) = result(whole), alarms_in(whole)
    # the window of one judged the weights after step - 1, so those of step - 2 are the last good
    assert found["stopped"] == {**alarm, "kept_step": alarm["step"] - 2}
    assert found["steps"] == alarm["step"] - 2 > 0
    assert "held_out/accuracy" in curve(whole)[3]
    # four minibatches an update: cut between two of those of the last one
    cut = killed_after(whole, 4 * alarm["step"] - 2, tmp_path / "cut")
    assert main(["run", str(cut)]) == 0
    assert curve(cut) == curve(whole)
    assert alarms_in(cut) == [alarm]
    assert result(cut)["stopped"] == found["stopped"]
    assert (cut / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()

    # a budget that the very first update breaks leaves nothing to keep
    config["alarms"] = settings | {"kl_budget_nats": 0.01}
    none = make_run(tmp_path / "none", config, **files)
    capsys.readouterr()
    assert main(["run", str(none)]) == 1
    found = result(none)
    assert (found["status"], found["cause"], found["adapter"]) == ("failed", "alarm", None)
    assert (found["stopped"]["kept_step"], found["steps"]) == (0, 0)
    assert "nothing was worth keeping" in found["reason"]
    assert "Traceback" not in capsys.readouterr().err


def test_a_stop_without_held_out_rows_to_watch_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = make_run(
        tmp_path / "run", asked("dpo", tiny, {"over_optimisation": "stop"}), train=PAIRS
    )
    assert main(["run", str(folder)]) == 1
    assert "holds no rows to measure on" in result(folder)["reason"]
