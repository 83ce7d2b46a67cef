"""A finished run's peak beside its plan, on its page and in later plans."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.api.world import World
from tests.factories import make_project
from tests.people import People
from tests.training.rows import make_round, make_run
from training.engine.config import from_dict, to_dict
from training.engine.planner import Lengths, plan
from training.engine.planner_shapes import packaged_shape
from training.models import Run, RunCalibration, RunEvent
from training.selectors.calibrations import memory_factor
from training.services.calibrating import MIB, record_calibration

CONFIG = to_dict(from_dict({"method": "dpo", "base": {"source": "demo", "quantization": "nf4"}}))
LENGTHS = {"longest": 300, "mean": 200.0, "prompt": 100, "row": 600, "rows": 40}


def planned_mb(device: str = "cpu") -> float:
    found = plan(
        from_dict(CONFIG), packaged_shape("demo"), None, lengths=Lengths(**LENGTHS), device=device
    )
    return found.total_bytes / MIB


def ended(run: Run, device: str = "cpu", **result: Any) -> Run:
    run.config = CONFIG
    run.result = {"status": "done", "metrics": {"dpo/margin_after": 0.1}, "steps": 4,
                  "seconds": 9.0, "lengths": LENGTHS, **result}  # fmt: skip
    run.save()
    RunEvent.objects.create(
        run=run, attempt=1, seq=0, kind="start", at=run.created_at, body={"device": device}
    )
    return run


@pytest.fixture
def run(people: People) -> Run:
    return make_run(make_round(make_project(people.workspace)))


@pytest.mark.django_db
def test_the_peak_above_the_libraries_stands_beside_the_plan(run: Run) -> None:
    said = planned_mb()
    made = record_calibration(run=ended(run, peak_mb=500 + 0.8 * said, imports_mb=500.0))
    assert made is not None
    assert made.device == "cpu"
    assert made.planned_mb == pytest.approx(said)
    assert made.measured_mb == pytest.approx(0.8 * said)
    assert made.error == pytest.approx(0.25)
    assert record_calibration(run=run) == made
    assert RunCalibration.objects.count() == 1


@pytest.mark.django_db
def test_a_gpus_peak_is_taken_as_it_is(run: Run) -> None:
    made = record_calibration(run=ended(run, device="cuda:0", peak_mb=1000.0))
    assert made is not None
    assert (made.device, made.measured_mb) == ("gpu", 1000.0)
    assert made.planned_mb == pytest.approx(planned_mb("gpu"))


@pytest.mark.django_db
@pytest.mark.parametrize(
    "result",
    [
        {"peak_mb": 900.0},  # by an engine that did not say
        {"peak_mb": 400.0, "imports_mb": 500.0},
        {"peak_mb": 900.0, "imports_mb": 500.0, "lengths": {"longest_ever": 3}},
        {"peak_mb": 900.0, "imports_mb": 500.0, "lengths": None},
    ],
)
def test_what_is_not_known_is_not_compared(result: dict[str, Any], run: Run) -> None:
    assert record_calibration(run=ended(run, **result)) is None
    assert not RunCalibration.objects.exists()


@pytest.mark.django_db
def test_a_base_that_is_elsewhere_is_not_compared(run: Run) -> None:
    run.version.base = {**run.version.base, "source": "org/model"}
    assert record_calibration(run=ended(run, peak_mb=900.0, imports_mb=500.0)) is None


@pytest.mark.django_db
def test_the_run_page_says_how_far_the_plan_was_off(
    run: Run, people: People, client: Client
) -> None:
    client.force_login(people.rita)
    ended(run, peak_mb=500 + 2 * planned_mb(), imports_mb=500.0)
    assert "Its plan said" not in client.get(f"/runs/{run.pk}/").content.decode()
    record_calibration(run=run)
    page = client.get(f"/runs/{run.pk}/").content.decode()
    assert "the plan was 50 % too low" in page


@pytest.mark.django_db
def test_later_plans_are_multiplied_by_the_median_and_say_so(world: World, client: Client) -> None:
    asked = {"config": CONFIG, "device": "cpu", "longest": 300, "rows": 40}
    before = world.rita.post("/plan", asked).json()
    assert before["calibration"] is None
    round = make_round(world.project, snapshot=world.snapshot)
    for ratio in (0.5, 0.8, 3.0):
        RunCalibration.objects.create(
            run=make_run(round, state="succeeded"), device="cpu",
            planned_mb=100.0, measured_mb=100.0 * ratio,
        )  # fmt: skip
    found = memory_factor(workspace=world.people.workspace, method="dpo", device="cpu")
    assert found is not None
    assert (found.factor, found.runs) == (0.8, 3)
    after = world.rita.post("/plan", asked).json()
    assert after["calibration"] == {"factor": 0.8, "runs": 3}
    assert after["total_bytes"] == pytest.approx(0.8 * before["total_bytes"], abs=20)
    assert after["total_bytes"] == sum(term["bytes"] for term in after["terms"])
    assert after["total_bytes"] == max(after["phases"].values())
    # what was measured on one kind of device, or of one method, says nothing of others
    for other in ({"device": "gpu"}, {"config": {**CONFIG, "method": "reward", "dpo": None}}):
        assert world.rita.post("/plan", {**asked, **other}).json().get("calibration") is None
    # it fits now where it did not, by what was measured
    limit = {**asked, "device_gb": 0.9 * before["total_bytes"] / 1e9}
    assert world.rita.post("/plan", limit).json()["fits"] is True
    client.force_login(world.people.rita)
    sent = {"method": "dpo", "device": "cpu-8", "version": world.base.pk}
    page = client.post("/plan/", sent).content.decode()
    assert "multiplied by 0.80, the median of measured over planned memory of 3 runs of dpo" in page
