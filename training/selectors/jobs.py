"""What one job is, and what a person can do about it."""

from __future__ import annotations

from dataclasses import dataclass

from annotate.models import JudgeVersion, Project, Snapshot
from training.models import Job, ModelVersion
from training.selectors.attempts import Attempt, Transition, job_attempts, job_history
from training.selectors.checkpoints import KnownCheckpoint, resume_step, run_checkpoints
from training.selectors.events import RunPace, run_pace
from training.selectors.proposals import Proposal, smaller_proposal
from training.selectors.reasons import Advice, advice
from training.selectors.waiting import why_it_waits
from training.services.controlling import may_cancel, may_retry


@dataclass(frozen=True)
class Standing:
    """How a job stands and what comes next; the pages of a job and of its run share it."""

    job: Job
    #: What it waits for, in sentences; empty where it ended or is simply at work.
    waits: list[str]
    #: Why it ended badly; None where it did not.
    advice: Advice | None
    #: Settings that need less memory, where that is what it lacked.
    proposal: Proposal | None
    may_cancel: bool
    may_retry: bool
    #: The step from which another attempt goes on; None where it begins anew.
    resume_step: int | None


def job_standing(job: Job, checkpoints: list[KnownCheckpoint]) -> Standing:
    ended_badly = job.state in (Job.State.FAILED, Job.State.CANCELLED)
    short_of_memory = ended_badly and job.reason == "oom" and job.run is not None
    return Standing(
        job=job,
        waits=why_it_waits(job),
        advice=advice(job.reason, kind=job.kind) if ended_badly else None,
        proposal=smaller_proposal(job.run) if short_of_memory and job.run else None,
        may_cancel=may_cancel(job),
        may_retry=may_retry(job),
        resume_step=resume_step(checkpoints),
    )


@dataclass(frozen=True)
class JobStory:
    """Everything that the page of a job shows."""

    standing: Standing
    snapshot: Snapshot | None
    version: ModelVersion | None
    #: Of a job that lets a machine judge.
    judge: JudgeVersion | None
    project: Project | None
    attempts: list[Attempt]
    history: list[Transition]
    checkpoints: list[KnownCheckpoint]
    #: How far its run is; None for what is no run at work.
    pace: RunPace | None


def job_story(job: Job) -> JobStory:
    checkpoints = run_checkpoints(job.run) if job.run else []
    ours = job.workspace_id
    snapshot = Snapshot.objects.filter(workspace=ours, pk=job.payload.get("snapshot"))
    version = ModelVersion.objects.filter(workspace=ours, pk=job.payload.get("version"))
    return JobStory(
        standing=job_standing(job, checkpoints),
        snapshot=snapshot.select_related("project").first(),
        version=version.first(),
        judge=JudgeVersion.objects.filter(workspace=ours, pk=job.payload.get("judge")).first(),
        project=Project.objects.filter(workspace=ours, pk=job.payload.get("project")).first(),
        attempts=job_attempts(job),
        history=job_history(job),
        checkpoints=checkpoints,
        pace=run_pace(job.run) if job.run and job.state == Job.State.RUNNING else None,
    )
