"""The demo's story: real judgments become a reward model, two policies, and new pairs to judge.

Every stage calls the same services as the pages and the commands; nothing is precomputed. Each
stage looks at what is already there, so a demo that was stopped goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db.models import QuerySet

from annotate.export.writers import export_snapshot
from annotate.models import Comparison, Judgment, Project, PromptSet, Snapshot
from annotate.selectors.quality import project_agreement
from annotate.services.aggregation import aggregate_project
from annotate.services.freezing import freeze_snapshot
from annotate.services.ingest import import_comparisons, import_prompts, store_prompt_set
from annotate.services.projects import create_project
from rlhf_platform.accounts.models import User, Workspace
from training.demo.memory_watch import MemoryWatch
from training.demo.report import Report, Stage
from training.errors import TrainingError
from training.models import Job, ModelVersion, Round, Run, Sample
from training.selectors.runs import run_progress
from training.services.launching import launch_round
from training.services.versions import base_version

PROJECT = "helpful-answers"
FRESH_PROMPTS = "fresh-prompts"
FRESH_SHORT = "fresh-prompts-short"
DATA = Path(__file__).resolve().parent.parent.parent / "annotate" / "demo_data"
GUIDELINES = """\
Which answer would you rather have received?

1. It does what was asked, completely.
2. What it says is true.
3. It is as long as it needs to be and no longer.

Say **tie** when you honestly cannot prefer one, **both bad** when neither helps.
"""
AGREEMENT_NOTE = (
    "The source of these judgments had already filtered out most items its three annotators "
    "disagreed on, so this agreement is higher than people reach on unfiltered pairs."
)

#: Settings that fit two processor cores and fifteen minutes; everything else is the default.
#: One pass over 22 × 8 = 176 of the training pairs, measured on 56 held-out ones.
ONE_PASS = {"lr": 3e-4, "batch_size": 8, "epochs": 1, "max_steps": 22}
HELD_OUT = {"max_test_rows": 56}
REWARD = {"optim": ONE_PASS, "data": HELD_OUT}
DPO = {"optim": ONE_PASS, "data": HELD_OUT}
PPO = {
    "optim": {"lr": 3e-4},
    "ppo": {
        "updates": 7,
        "episodes_per_update": 8,
        "max_new_tokens": 32,
        "epochs": 2,
        "eval_prompts": 16,
        # Answers are cut at 32 tokens for the sake of time, so nearly none ends by itself: the
        # usual penalty would be the whole signal, ten times the spread of the reward.
        "missing_eos_penalty": 0.0,
    },
}
EVALUATION = {"data": HELD_OUT, "evaluate": {"generate": 8, "max_new_tokens": 32}}
SAMPLING = {"sample": {"samples_per_prompt": 2, "max_new_tokens": 48}}
#: How many of the fresh prompts the demo's policies answer; each gives two comparisons.
FRESH_USED = 12

Show = Callable[[str, int, int], None]  # stage, done, total


class DemoFailed(TrainingError):
    """Raised when a round of the demo ends without a result; says which and where to look."""


@dataclass
class Demo:
    """What the stages share."""

    workspace: Workspace
    actor: User
    folder: Path
    report: Report
    memory: MemoryWatch
    show: Show

    def enter(self, stage: str, done: int, total: int) -> None:
        """Say how far `stage` is, to the person and to the memory watch."""
        self.memory.enter_stage(stage)
        self.show(stage, done, total)

    @property
    def project(self) -> Project:
        return Project.objects.get(workspace=self.workspace, slug=PROJECT)


def run_all(demo: Demo) -> None:
    """The whole loop once. Raises `DemoFailed` where a round failed, nothing it made is removed."""
    import_data(demo)
    measure_agreement(demo)
    snapshot = freeze(demo)
    first = finish_round(demo, snapshot=snapshot, method=Round.Method.DPO)
    second = finish_round(
        demo, snapshot=snapshot, method=Round.Method.PPO, reward_version=first.reward_version
    )
    report_rounds(demo, rounds=[first, second])


def import_data(demo: Demo) -> None:
    started = time.monotonic()
    project = Project.objects.filter(workspace=demo.workspace, slug=PROJECT).first()
    if project is None:
        project = create_project(
            workspace=demo.workspace,
            name="Helpful answers",
            slug=PROJECT,
            guidelines=GUIDELINES,
            actor=demo.actor,
        )
    files = {"pandalm": DATA / "pandalm.jsonl.gz", "hh": DATA / "hh-helpful.jsonl.gz"}
    demo.enter("import", 0, 3)
    for done, (name, path) in enumerate(files.items(), start=1):
        import_comparisons(project=project, path=path, format=name)
        demo.enter("import", done, 3)
    prompts = import_prompts(
        workspace=demo.workspace,
        path=DATA / "fresh-prompts.jsonl.gz",
        name=FRESH_PROMPTS,
        use=PromptSet.Use.FRESH,
    )
    store_prompt_set(
        workspace=demo.workspace,
        conversations=[entry.prompt.messages for entry in prompts.entries.all()[:FRESH_USED]],
        name=FRESH_SHORT,
        use=PromptSet.Use.FRESH,
    )
    demo.enter("import", 3, 3)
    imported = Comparison.objects.filter(project=project, origin=Comparison.Origin.IMPORT)
    judgments = Judgment.objects.current().filter(comparison__in=imported)
    add_stage(
        demo,
        "import",
        started,
        rows=imported.count(),
        metrics={
            "judgments": judgments.count(),
            "annotators": judgments.values("annotator").distinct().count(),
            "prompts": imported.values("prompt").distinct().count(),
            "fresh_prompts": prompts.entries.count(),
        },
    )


def measure_agreement(demo: Demo) -> None:
    started = time.monotonic()
    demo.enter("agreement", 0, 1)
    agreement = project_agreement(project=demo.project)
    demo.enter("agreement", 1, 1)
    add_stage(
        demo,
        "agreement",
        started,
        rows=agreement.n_comparisons,
        metrics={
            "krippendorff_alpha": agreement.alpha,
            "alpha_low": agreement.low,
            "alpha_high": agreement.high,
            "judgments": agreement.n_judgments,
            "annotators": agreement.n_annotators,
            "reason": agreement.reason,
            "note": AGREEMENT_NOTE,
        },
    )


def freeze(demo: Demo) -> Snapshot:
    """The first snapshot of the project, frozen now unless an earlier start of the demo did."""
    started = time.monotonic()
    demo.enter("snapshot", 0, 2)
    project = demo.project
    snapshot = project.snapshots.order_by("number").first()
    if snapshot is None:
        aggregation = aggregate_project(project=project)
        snapshot = freeze_snapshot(
            project=project, aggregation=aggregation, test_fraction=0.25, actor=demo.actor
        )
    demo.enter("snapshot", 1, 2)
    export_snapshot(snapshot=snapshot, folder=demo.folder / "snapshot", format="parquet")
    demo.enter("snapshot", 2, 2)
    held_out = snapshot.rows.filter(split="test")
    add_stage(
        demo,
        "snapshot",
        started,
        rows=snapshot.n_train + snapshot.n_test,
        metrics={
            "train": snapshot.n_train,
            "test": snapshot.n_test,
            "test_prompts": held_out.values("preference__comparison__prompt").distinct().count(),
            "sha256": snapshot.sha256,
        },
    )
    return snapshot


def finish_round(
    demo: Demo, *, snapshot: Snapshot, method: str, reward_version: ModelVersion | None = None
) -> Round:
    """The latest round of `method` that can still end well, or a new one; waited for."""
    rounds = Round.objects.filter(project=demo.project, method=method)
    alive = rounds.exclude(state__in=[Round.State.FAILED, Round.State.CANCELLED])
    current = alive.order_by("-number").first()
    if current is None:
        current = launch_round(
            project=demo.project,
            snapshot=snapshot,
            method=method,
            reference=base_version(workspace=demo.workspace),
            fresh_prompts=PromptSet.objects.filter(
                workspace=demo.workspace, name=FRESH_SHORT
            ).latest("version"),
            reward_version=reward_version,
            config={
                "reward": REWARD,
                "policy": DPO if method == Round.Method.DPO else PPO,
                "evaluate": EVALUATION,
                "sample": SAMPLING,
            },
            actor=demo.actor,
        )
    wait_for_round(demo, current)
    return current


def wait_for_round(demo: Demo, current: Round, *, poll_s: float = 0.5) -> None:
    """Show each run's progress until the round waits for a verdict; its runs become stages."""
    settled = {Round.State.AWAITING_VERDICT, Round.State.PROMOTED, Round.State.REJECTED}
    while True:
        current.refresh_from_db()
        job = (
            Job.objects.filter(run__round=current, state__in=[Job.State.QUEUED, Job.State.RUNNING])
            .order_by("id")
            .select_related("run")
            .first()
        )
        if job is not None and job.run is not None:
            demo.enter(job.run.method, *run_progress(job.run))
        for run in current.runs.filter(result__isnull=False, method__in=["reward", "dpo", "ppo"]):
            if run.method not in demo.report.stages:
                add_run_stage(demo, run)
        if current.state in settled:
            return
        if current.state in Round.FINAL:
            raise DemoFailed(
                f"Round {current.number} ({current.method}) {current.get_state_display().lower()}: "
                f"{current.reason or 'no reason was given'}. Its runs are under "
                f"{demo.folder / 'runs'}. `make demo` tries again, `make demo FRESH=1` starts clean"
            )
        time.sleep(poll_s)


def add_run_stage(demo: Demo, run: Run) -> None:
    result: dict[str, Any] = run.result or {}
    demo.report.add(
        Stage(
            name=run.method,
            rows=result.get("rows") or 0,
            steps=result.get("steps") or 0,
            seconds=run_seconds(run),
            peak_mb=demo.memory.peak_mb(run.method),
            metrics=result.get("metrics", {}),
        )
    )


def run_seconds(run: Run) -> float:
    """Wall time from the first claim of the run's job to its end, process start included."""
    job = run.job
    if job.started_at is None or job.finished_at is None:
        return float((run.result or {}).get("seconds") or 0.0)
    return round((job.finished_at - job.started_at).total_seconds(), 1)


def report_rounds(demo: Demo, *, rounds: list[Round]) -> None:
    """The evaluate and sample stages, which both rounds have, as one stage each."""
    runs = Run.objects.filter(round__in=rounds, result__isnull=False).order_by("id")
    evaluations = runs.filter(method=Run.Method.EVALUATE).select_related("round")
    demo.report.add(
        Stage(
            name="evaluate",
            rows=max((run.result["rows"] for run in evaluations if run.result), default=0),
            steps=total_steps(evaluations),
            seconds=round(sum(run_seconds(run) for run in evaluations), 1),
            peak_mb=demo.memory.peak_mb("evaluate"),
            metrics={
                run.round.method: run.result["metrics"]
                for run in evaluations
                if run.round and run.result
            },
        )
    )
    samplings = runs.filter(method=Run.Method.SAMPLE)
    opened = Comparison.objects.filter(
        project=demo.project, origin_reference__in=[f"round:{one.pk}" for one in rounds]
    )
    demo.report.add(
        Stage(
            name="sample",
            rows=Sample.objects.filter(run__in=samplings).count(),
            steps=total_steps(samplings),
            seconds=round(sum(run_seconds(run) for run in samplings), 1),
            peak_mb=demo.memory.peak_mb("sample"),
            metrics={
                "comparisons_opened": opened.count(),
                "open_now": opened.filter(slots__gt=0).count(),
                **{
                    f"comparisons_{origin}": opened.filter(origin=origin).count()
                    for origin in (Comparison.Origin.ON_POLICY, Comparison.Origin.OLD_NEW)
                },
            },
        )
    )


def total_steps(runs: QuerySet[Run]) -> int:
    return sum((run.result or {}).get("steps") or 0 for run in runs)


def add_stage(demo: Demo, name: str, started: float, *, rows: int, metrics: dict[str, Any]) -> None:
    """A stage that ran in this process, which has no steps of its own."""
    demo.report.add(
        Stage(
            name=name,
            rows=rows,
            steps=0,
            seconds=round(time.monotonic() - started, 1),
            peak_mb=demo.memory.peak_mb(name),
            metrics=metrics,
        )
    )
