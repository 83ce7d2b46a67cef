"""The round's state machine and its plan: which run comes next, and what each run leaves behind."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from training.engine.config import ONLINE_METHODS, from_dict, to_dict
from training.engine.errors import ConfigError
from training.errors import CannotLaunch, IllegalTransition
from training.models import Job, ModelVersion, Round, Run
from training.services import queueing
from training.services.presets import FULL_LR, LORA, merged
from training.services.registering import register_single, register_version
from training.services.sampling import (
    open_cold_start,
    open_round_comparisons,
    store_samples,
)
from training.services.versions import adapter_folder

State = Round.State
WORKING = (
    State.TRAINING_SFT,
    State.TRAINING_REWARD,
    State.TRAINING_POLICY,
    State.EVALUATING,
    State.SAMPLING,
)
#: Later stages may be reached from any earlier one, because stages can be left out.
TRANSITIONS: dict[str, frozenset[str]] = {
    State.DRAFT: frozenset({*WORKING, State.FAILED, State.CANCELLED}),
    **{
        state: frozenset({*WORKING[index:], State.AWAITING_VERDICT, State.FAILED, State.CANCELLED})
        for index, state in enumerate(WORKING)
    },
    State.AWAITING_VERDICT: frozenset({State.PROMOTED, State.REJECTED}),
    State.FAILED: frozenset(WORKING),  # retried
    State.CANCELLED: frozenset({*WORKING, State.AWAITING_VERDICT}),  # retried
    State.PROMOTED: frozenset(),
    State.REJECTED: frozenset(),
}
CANCELLED = "Cancelled by a person."
STAGE_STATES: dict[str, str] = {
    "sft": State.TRAINING_SFT,
    "reward": State.TRAINING_REWARD,
    "policy": State.TRAINING_POLICY,
    "evaluate": State.EVALUATING,
    "sample_policy": State.SAMPLING,
    "sample_reference": State.SAMPLING,
}


def advance_round(*, round: Round, to: str, reason: str = "") -> Round:
    """Move a round, under a row lock. Raises IllegalTransition for a move the table lacks."""
    with transaction.atomic():
        locked = Round.objects.select_for_update().get(pk=round.pk)
        if to != locked.state:
            if to not in TRANSITIONS[locked.state]:
                raise IllegalTransition(
                    f"round {locked.number} cannot go from {locked.state} to {to}"
                )
            locked.state = to
            locked.reason = reason
            locked.finished_at = timezone.now() if to in Round.FINAL else None
            locked.save(update_fields=["state", "reason", "finished_at"])
    round.refresh_from_db()
    return round


def plan(round: Round) -> list[str]:
    """The names of the round's stages, in order."""
    first: list[str] = []
    if trains_whole_models(round):
        # reward models and evaluation are adapters on the base that a whole model no longer is
        first += ["sft"] if round.config.get("sft") is not None else []
        return [*first, "policy", "sample_policy", "sample_reference"]
    if round.method != Round.Method.SFT:
        if round.config.get("sft") is not None:
            first.append("sft")
        if not round.config.get("reward_given"):
            first.append("reward")
    return [*first, "policy", "evaluate", "sample_policy", "sample_reference"]


def trains_whole_models(round: Round) -> bool:
    return bool(round.config.get("tuning") == "full")


def start_version(round: Round) -> ModelVersion:
    """Where the policy starts, which is also its reference: this round's SFT if it has one."""
    if round.pk is None:  # a draft, which is only planned
        return round.reference
    fine_tuned = round.runs.filter(stage="sft", output__isnull=False).order_by("-pk").first()
    if fine_tuned is not None and fine_tuned.output is not None:
        return fine_tuned.output
    return round.reference


def stage_config(round: Round, stage: str, *, rehearsal: bool = False) -> dict[str, Any]:
    """The engine's config of one stage, validated. Raises CannotLaunch.

    In a rehearsal (before launch) adapters that earlier stages will make are given a stand-in path,
    so that every other field is checked before a job exists.
    """
    method = {"policy": round.method, "sample_policy": "sample", "sample_reference": "sample"}.get(
        stage, stage
    )
    overrides = round.config.get("sample" if method == "sample" else stage) or {}
    config = merged(method, overrides)
    start = start_version(round)
    config |= {
        "method": method,
        "seed": round.config.get("seed", round.pk or 0),
        "threads": settings.TRAINING_THREADS,
        "base": base_of_stage(round, stage, start),
        "adapter": {**LORA, **round.config.get("adapter", {})},
    }
    if trains_whole_models(round):
        config.pop("adapter")
        if stage in ("sft", "policy"):
            config["tuning"] = "full"
            if isinstance(config["optim"], dict):
                config["optim"] |= {"lr": FULL_LR} | overrides.get("optim", {})

    def made(version: ModelVersion | None) -> str | None:
        if rehearsal:
            return "made-later"
        return adapter_folder(version) if version is not None else None

    section = config.setdefault(method, {})
    if not isinstance(section, dict):
        raise CannotLaunch(f"{stage}.{method} must be an object of settings, not {section!r}")
    if trains_whole_models(round):
        pass  # no adapter is started from, and none compared
    elif stage in ("sft", "policy"):
        config["adapter"]["init_from"] = adapter_folder(start)
    if method in ONLINE_METHODS:
        section["reward_adapter"] = made(round.reward_version)
    elif stage == "evaluate":
        section["policy_adapter"] = made(round.policy_version)
        section["reference_adapter"] = adapter_folder(start)
        if round.method != Round.Method.SFT:
            section["reward_adapter"] = made(round.reward_version)
    elif stage == "sample_policy" and not trains_whole_models(round):
        config["adapter"]["init_from"] = made(round.policy_version)
    elif stage == "sample_reference":
        if not trains_whole_models(round):
            config["adapter"]["init_from"] = adapter_folder(round.reference)
        section["samples_per_prompt"] = 1
    try:
        return to_dict(from_dict(config))
    except ConfigError as error:
        raise CannotLaunch(f"{stage}: {error}") from error


def base_of_stage(round: Round, stage: str, start: ModelVersion) -> dict[str, Any]:
    """What a stage loads: the round's base, or the whole model that it goes on with."""
    if not trains_whole_models(round) or stage == "sample_reference":
        return dict(round.reference.base)
    if stage == "sample_policy" and round.policy_version is not None:
        return dict(round.policy_version.base)
    return dict(start.base)


def launch_stage(*, round: Round, stage: str) -> Run:
    """Create and queue one stage's run, and move the round to its state."""
    config = stage_config(round, stage)
    sampled = round.reference if stage == "sample_reference" else round.policy_version
    version = sampled if config["method"] == "sample" and sampled else start_version(round)
    run = Run.objects.create(
        workspace=round.workspace,
        round=round,
        method=config["method"],
        stage=stage,
        config=config,
        folder=f"round-{round.pk}/{stage}-{uuid.uuid4().hex[:8]}",
        version=version,
    )
    is_sampling = run.method == Run.Method.SAMPLE
    queueing.enqueue(
        kind=Job.Kind.RUN,
        queue=Job.Queue.SAMPLING if is_sampling else Job.Queue.TRAINING,
        workspace=round.workspace,
        run=run,
        round=round,
        payload={"prompt_set": round.fresh_prompts.pk} if is_sampling else {},
    )
    advance_round(round=round, to=STAGE_STATES[stage])
    return run


def run_finished(*, run: Run) -> None:
    """Take over what a run made, and launch the round's next stage. Doing it twice is harmless.

    Where a person asked to cancel while the run was ending, the round ends here instead.
    """
    if run.method == Run.Method.SAMPLE:
        store_samples(run=run)
    if run.round is None and run.method == Run.Method.SAMPLE:
        open_cold_start(run=run)
        return
    if run.round is None:
        run.output = register_single(run=run)
        run.save(update_fields=["output"])
        return
    round = Round.objects.select_for_update().get(pk=run.round.pk)
    made = run.result and (run.result.get("adapter") or run.result.get("model"))
    if made and run.output is None:
        kind = {
            "sft": ModelVersion.Kind.SFT,
            "reward": ModelVersion.Kind.REWARD,
        }.get(run.method, ModelVersion.Kind.POLICY)
        run.output = register_version(run=run, round=round, kind=kind)
        run.save(update_fields=["output"])
        if run.stage == "reward":
            round.reward_version = run.output
        elif run.stage == "policy":
            round.policy_version = run.output
        round.save(update_fields=["reward_version", "policy_version"])
    if Job.objects.filter(run=run, cancel_requested=True).exists():
        advance_round(round=round, to=State.CANCELLED, reason=CANCELLED)
    else:
        go_on(round=round, after=run.stage)


def go_on(*, round: Round, after: str) -> None:
    """Launch the stage that follows one; after the last, open comparisons and ask for a verdict."""
    names = plan(round)
    later = names[names.index(after) + 1 :]
    if not later:
        open_round_comparisons(round=round)
        advance_round(round=round, to=State.AWAITING_VERDICT)
    elif not round.runs.filter(stage=later[0]).exists():
        launch_stage(round=round, stage=later[0])


def run_ended_badly(*, run: Run, to: str, reason: str) -> None:
    """A run failed or was cancelled: so is its round, with the reason in plain words."""
    if run.round is None:
        return
    round = Round.objects.select_for_update().get(pk=run.round.pk)
    if round.state not in Round.FINAL:
        advance_round(round=round, to=to, reason=f"{run.get_method_display()}: {reason}")


@transaction.atomic
def cancel_round(*, round: Round) -> None:
    """Stop a round: its waiting jobs at once, its running one as soon as the worker hears of it."""
    # Under the lock no run of it can end and launch the next, which nobody would then cancel.
    queueing.lock_round(round.pk)
    for job in Job.objects.filter(round=round).exclude(state__in=queueing.FINAL):
        queueing.request_cancel(job=job)
    if not Job.objects.filter(round=round, state=Job.State.RUNNING).exists():
        advance_round(round=round, to=State.CANCELLED, reason=CANCELLED)


@transaction.atomic
def retry_round(*, round: Round) -> None:
    """Queue the job that failed or was cancelled again; the round goes on from there.

    A round that was cancelled between two stages goes on with the next. Raises IllegalTransition
    where there is nothing to retry.
    """
    queueing.lock_round(round.pk)
    round.refresh_from_db()
    newest = Job.objects.filter(round=round).select_related("run").order_by("-pk").first()
    ended_well = newest is not None and newest.state == Job.State.SUCCEEDED
    if ended_well and round.state == State.CANCELLED and newest and newest.run:
        go_on(round=round, after=newest.run.stage)
        return
    job = (
        Job.objects.filter(round=round, state__in=[Job.State.FAILED, Job.State.CANCELLED])
        .select_related("run")
        .order_by("-pk")
        .first()
    )
    if job is None or job.run is None:
        raise IllegalTransition(f"round {round.number} has no failed or cancelled run to retry")
    advance_round(round=round, to=STAGE_STATES[job.run.stage])
    queueing.retry(job=job)
