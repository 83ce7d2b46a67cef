"""Everything a round's page shows while it runs and after: stages, pace, curves, samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from annotate.models import Comparison, SnapshotRow
from training.models import Job, Round, Run, RunEvent, Sample
from training.selectors.alarms import Rang, run_alarms
from training.selectors.events import RunPace, run_pace
from training.selectors.reasons import Advice, advice
from training.selectors.results import Measure, run_measures
from training.selectors.round_events import newest_run
from training.selectors.runs import Curve, run_curves
from training.selectors.stops import Stop, run_stops
from training.services.rounds import plan

STAGE_NAMES = {
    "sft": "fine-tuning",
    "reward": "reward model",
    "policy": "policy",
    "evaluate": "evaluation",
    "sample_policy": "new answers",
    "sample_reference": "old answers",
}
#: Methods whose metrics are curves; the others report once.
TRAINED = (
    Run.Method.SFT, Run.Method.REWARD, Run.Method.DPO, Run.Method.KTO, Run.Method.ORPO,
    Run.Method.PPO, Run.Method.GRPO, Run.Method.RLOO, Run.Method.PRETRAIN, Run.Method.CLASSIFY,
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One step of the strip; without a run it is still to come (or was never reached)."""

    name: str
    run: Run | None

    @property
    def tone(self) -> str:
        if self.run is None:
            return "ahead"
        state = self.run.job.state
        if state == Job.State.SUCCEEDED:
            return "done"
        return "bad" if state in (Job.State.FAILED, Job.State.CANCELLED) else "now"


@dataclass(frozen=True)
class Shown:
    """A sample of the moment beside what people preferred for the same prompt."""

    step: int
    prompt: list[dict[str, str]]
    text: str
    reward: float | None
    beside: str
    beside_is: str


@dataclass(frozen=True)
class Trouble:
    """A run that ended badly: what happened, what it means, what to do."""

    run: Run
    detail: str
    advice: Advice


@dataclass(frozen=True)
class Watch:
    """The state of a round at one moment."""

    stages: list[Stage]
    run: Run | None
    pace: RunPace | None
    charts: list[tuple[Run, list[Curve]]]
    results: list[tuple[str, Run, list[Measure]]]
    stops: list[Stop]
    alarms: list[Rang]
    warnings: list[tuple[Run, str]]
    troubles: list[Trouble]
    sample: Shown | None


def watch_round(round: Round) -> Watch:
    runs = list(round.runs.select_related("job").order_by("pk"))
    for run in runs:
        run.round = round  # its snapshot is loaded already
    by_stage = {run.stage: run for run in runs}
    newest = runs[-1] if runs else None
    alarms, stops = run_alarms(runs), run_stops(runs)
    told = {(stop.run.pk, stop.why) for stop in stops}
    charts = [(run, run_curves(run, alarms)) for run in runs if run.method in TRAINED]
    return Watch(
        stages=[Stage(STAGE_NAMES[name], by_stage.get(name)) for name in plan(round)],
        run=newest,
        pace=run_pace(newest) if newest is not None else None,
        charts=[(run, curves) for run, curves in reversed(charts) if curves],
        results=[
            (STAGE_NAMES[run.stage], run, found) for run in runs if (found := run_measures(run))
        ],
        stops=stops,
        alarms=alarms,
        warnings=[each for each in run_warnings(runs) if (each[0].pk, each[1]) not in told],
        troubles=[
            Trouble(run, run.job.detail or round.reason, advice(run.job.reason))
            for run in runs
            if run.job.state in (Job.State.FAILED, Job.State.CANCELLED)
        ],
        sample=newest_sample(round),
    )


def run_warnings(runs: list[Run], *, about_rows: bool = True) -> list[tuple[Run, str]]:
    """Each warning once per run, though every attempt repeats it.

    Those of the preflight are left out where a page shows its table instead of them.
    """
    named = {run.pk: run for run in runs}
    events = RunEvent.objects.filter(run__in=named, kind="warning").order_by(
        "run", "attempt", "seq"
    )
    if not about_rows:
        events = events.exclude(body__code__startswith="preflight_")
    found = {(event.run_id, str(event.body.get("message", ""))) for event in events}
    return [(named[pk], message) for pk, message in sorted(found)]


def newest_sample(round: Round) -> Shown | None:
    """The newest answer an engine showed, beside the preferred answer of the snapshot."""
    event = (
        RunEvent.objects.filter(run__round=round, kind="sample")
        .order_by("-run", "-attempt", "-seq")
        .first()
    )
    if event is None:
        return None
    return shown(event, round)


def shown(event: RunEvent, round: Round | None) -> Shown:
    body: dict[str, Any] = event.body
    beside, beside_is = "", ""
    prompt_id = str(body.get("prompt_id", ""))
    first = (
        RunEvent.objects.filter(run=event.run_id, kind="sample", body__prompt_id=prompt_id)
        .order_by("attempt", "seq")
        .first()
    )
    reference = reference_answer(round, prompt_id)
    if reference:
        beside, beside_is = reference, "the reference's answer"
    elif first is not None and first.pk != event.pk:
        beside, beside_is = str(first.body.get("text", "")), f"at step {first.body.get('step')}"
    elif round is not None:
        beside, beside_is = preferred_answer(round, prompt_id), "what people preferred"
    reward = body.get("reward")
    return Shown(
        step=int(body.get("step", 0)),
        prompt=list(body.get("prompt", [])),
        text=str(body.get("text", "")),
        reward=float(reward) if isinstance(reward, int | float) else None,
        beside=beside,
        beside_is=beside_is if beside else "",
    )


def reference_answer(round: Round | None, prompt_digest: str) -> str:
    """What the round's reference answered to this prompt, where it was ever asked."""
    if round is None:
        return ""
    sample = (
        Sample.objects.filter(version=round.reference_id, prompt__digest=prompt_digest)
        .select_related("response")
        .first()
    )
    return sample.response.text if sample is not None else ""


def preferred_answer(round: Round, prompt_digest: str) -> str:
    """The chosen response of one of the snapshot's rows of this prompt; empty where none is."""
    row = (
        SnapshotRow.objects.filter(
            snapshot=round.snapshot_id, preference__comparison__prompt__digest=prompt_digest
        )
        .select_related("preference__comparison__response_a", "preference__comparison__response_b")
        .first()
    )
    if row is None:
        return ""
    compared: Comparison = row.preference.comparison
    a, b = compared.pair
    return (a if row.preference.outcome == "a" else b).text


def round_signature(round: Round) -> str:
    """Changes whenever the round's page would look different for another reason than an event."""
    run = newest_run(round)
    job = Job.objects.filter(run=run).values_list("state", "attempts", "cancel_requested").first()
    return f"{round.state}:{run.pk if run else 0}:{job}"
