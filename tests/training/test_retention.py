"""Which checkpoints go, which stay, and that nothing else is ever touched."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.utils import timezone

from annotate.models import Comparison, MachineJudgment, Project
from annotate.services.machine_judging import register_judge
from tests.factories import make_comparison, make_project
from tests.people import People
from tests.training.rows import make_attempt, make_checkpoint, make_round, make_run
from training.models import Job, JobAttempt, Round, Run, RunCheckpoint
from training.services import retention
from training.services.judging_jobs import folder_of
from training.services.machine_judging import row_of
from training.services.retention import prune_checkpoints, prune_judgings


def ended(people: People, state: str, *, days: int = 8, round_state: str = "failed") -> Run:
    """A run of a round that ended so long ago, with three checkpoints of one attempt."""
    round = make_round(make_project(people.workspace), state=round_state)
    run = make_run(round, state=state, finished_at=timezone.now() - timedelta(days=days))
    attempt = make_attempt(run.job)
    for step in (1, 2, 3):
        make_checkpoint(run, attempt, step)
    return run


def steps_left(run: Run) -> list[int]:
    folder = Path(settings.RUNS_DIR) / run.folder
    left = sorted(int(path.name[5:]) for path in folder.glob("attempts/*/checkpoints/step-*"))
    rows = run.checkpoints.filter(removed_at=None).order_by("step")
    assert [row.step for row in rows] == left
    return left


def spoil(checkpoint: RunCheckpoint) -> None:
    folder = Path(settings.RUNS_DIR) / checkpoint.run.folder / checkpoint.path
    (folder / "tensors.safetensors").write_bytes(b"weighty")


def test_a_run_that_succeeded_keeps_none_after_its_days(people: People) -> None:
    run = ended(people, "succeeded", round_state="awaiting_verdict")
    folder = Path(settings.RUNS_DIR) / run.folder
    for name in ("adapter/adapter_model.safetensors", "result.json", "attempts/x/events.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("kept")
    removed = prune_checkpoints()
    assert steps_left(run) == []
    assert [one.run for one in removed] == [run] * 3
    assert sum(one.size_bytes for one in removed) > 3 * len(b"weights")
    for name in ("adapter/adapter_model.safetensors", "result.json", "attempts/x/events.jsonl"):
        assert (folder / name).read_text() == "kept"
    assert list(folder.glob("attempts/*/checkpoints/*")) == []
    assert prune_checkpoints() == []


def test_the_days_are_waited_for(people: People, settings: Any) -> None:
    run = ended(people, "succeeded", days=6, round_state="promoted")
    assert prune_checkpoints() == []
    settings.CHECKPOINT_KEEP_DAYS = 0  # for ever, not at once
    assert prune_checkpoints() == []
    assert steps_left(run) == [1, 2, 3]
    assert len(prune_checkpoints(older_than_days=0)) == 3


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_run_that_may_be_tried_again_keeps_its_newest_good_one(
    people: People, state: str
) -> None:
    run = ended(people, state, round_state=state)
    spoil(run.checkpoints.get(step=3))
    prune_checkpoints()
    assert steps_left(run) == [2]
    prune_checkpoints(older_than_days=0)
    assert steps_left(run) == [2]


def test_where_none_verifies_the_newest_stays(people: People) -> None:
    run = ended(people, "failed")
    for checkpoint in run.checkpoints.all():
        spoil(checkpoint)
    prune_checkpoints()
    assert steps_left(run) == [3]


@pytest.mark.parametrize("gone_on", ["another stage", "promoted", "rejected"])
def test_a_run_its_round_has_left_behind_keeps_none(people: People, gone_on: str) -> None:
    run = ended(people, "failed")
    assert run.round is not None
    if gone_on == "another stage":
        make_run(run.round, stage="evaluate", state="running")
    else:
        Round.objects.filter(pk=run.round.pk).update(state=gone_on)
    prune_checkpoints()
    assert steps_left(run) == []


def running(people: People, *, queued: bool = False) -> tuple[Run, JobAttempt, JobAttempt]:
    """A run in its second attempt, with three checkpoints of the first."""
    run = make_run(make_round(make_project(people.workspace)), state="running")
    first = make_attempt(run.job)
    for step in (1, 2, 3):
        make_checkpoint(run, first, step)
    second = make_attempt(run.job, 2, ended_at=None)
    Job.objects.filter(run=run).update(token=second.token, attempts=2)
    if queued:
        Job.objects.filter(run=run).update(state="queued", token=None, lease_until=None)
    return run, first, second


@pytest.mark.parametrize("queued", [False, True])
def test_a_run_that_goes_on_keeps_its_newest_two(people: People, queued: bool) -> None:
    run, _, _ = running(people, queued=queued)
    prune_checkpoints(older_than_days=0)
    assert steps_left(run) == [2, 3]


def test_the_attempt_at_work_keeps_all_its_own(people: People) -> None:
    run, _, second = running(people)
    for step in (4, 5, 6):
        make_checkpoint(run, second, step)
    prune_checkpoints()
    assert steps_left(run) == [4, 5, 6]


def test_only_checkpoints_that_verify_count_among_the_two(people: People) -> None:
    run, _, _ = running(people)
    spoil(run.checkpoints.get(step=3))
    prune_checkpoints()
    assert steps_left(run) == [1, 2, 3]


def test_nothing_is_deleted_outside_the_runs_own_folder(people: People, tmp_path: Path) -> None:
    run = ended(people, "succeeded", round_state="promoted")
    neighbour = tmp_path / "attempts" / "a" / "checkpoints" / "step-00000001"
    neighbour.mkdir(parents=True)
    (neighbour / "precious").write_text("precious")
    folder = Path(settings.RUNS_DIR) / run.folder
    (folder / "attempts" / "linked").symlink_to(tmp_path / "attempts" / "a")
    other = folder / "attempts" / "b" / "checkpoints"
    other.mkdir(parents=True)
    (other / "step-00000009").symlink_to(neighbour)
    outside = make_run(make_round(make_project(people.workspace, "p2")), state="succeeded")
    Run.objects.filter(pk=outside.pk).update(folder=f"../{tmp_path.name}")
    Job.objects.filter(run=outside).update(finished_at=timezone.now() - timedelta(days=9))
    prune_checkpoints(older_than_days=0)
    assert (neighbour / "precious").read_text() == "precious"


def test_a_folder_that_no_run_names_is_left_alone(people: People) -> None:
    stray = Path(settings.RUNS_DIR) / "old" / "thing" / "attempts" / "a" / "checkpoints" / "step-1"
    stray.mkdir(parents=True)
    prune_checkpoints(older_than_days=0)
    assert stray.is_dir()


def test_what_a_crash_left_half_deleted_or_half_written_goes_too(people: People) -> None:
    run = ended(people, "succeeded", round_state="promoted")
    beside = next((Path(settings.RUNS_DIR) / run.folder).glob("attempts/*/checkpoints"))
    for name in (".gone-step-00000001.ab", ".step-00000004.cd"):
        (beside / name).mkdir()
    prune_checkpoints()
    assert list(beside.iterdir()) == []


def test_a_run_that_is_tried_again_meanwhile_is_left_to_its_attempt(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ended(people, "failed")
    seen = retention.runs_with_checkpoints()
    again = make_attempt(run.job, 2, ended_at=None)
    made = make_checkpoint(run, again, 4)
    half = Path(settings.RUNS_DIR) / run.folder / f"{made.path[: -len('step-00000004')]}.step-5.ab"
    half.mkdir()
    Job.objects.filter(run=run).update(
        state="running", token=again.token, lease_until=timezone.now(), finished_at=None
    )
    monkeypatch.setattr(retention, "runs_with_checkpoints", lambda: seen)
    prune_checkpoints(older_than_days=0)
    assert steps_left(run) == [3, 4]
    assert half.is_dir()


def test_a_row_whose_files_went_before_it_was_told_is_told_later(people: People) -> None:
    run = ended(people, "failed")
    row = run.checkpoints.get(step=1)
    folder = Path(settings.RUNS_DIR) / run.folder / row.path
    folder.rename(folder.with_name(".gone-step-00000001.ab"))  # and then the power failed
    prune_checkpoints()
    row.refresh_from_db()
    assert row.removed_at is not None
    # A run whose folder is on another machine says nothing about its files.
    away = RunCheckpoint.objects.create(
        run=make_run(run.round, stage="evaluate"), attempt=1, step=1, path="x"
    )
    prune_checkpoints()
    away.refresh_from_db()
    assert away.removed_at is None


# Judgings ---------------------------------------------------------------------------------------


@pytest.fixture
def data(settings: Any, tmp_path: Path) -> Path:
    settings.DATA_DIR = tmp_path
    return tmp_path


def judging(
    people: People, state: str, *, days: int = 8, replied: bool = True
) -> tuple[Job, Comparison]:
    """A judging of one comparison that ended so long ago, with its folder."""
    project = make_project(people.workspace, slug=f"project-{Project.objects.count()}")
    comparison = make_comparison(project)
    judge = register_judge(workspace=people.workspace, name="strict", rubric="Be.", settings={})
    job = Job.objects.create(
        workspace=people.workspace, kind=Job.Kind.JUDGE, queue=Job.Queue.DEFAULT, state=state,
        payload={"project": project.pk, "judge": judge.pk},
        finished_at=timezone.now() - timedelta(days=days),
    )  # fmt: skip
    attempt = folder_of(job) / "attempts" / "one"
    attempt.mkdir(parents=True)
    (folder_of(job) / "data").mkdir()
    (folder_of(job) / "data" / "comparisons.jsonl").write_text(row_of(comparison) + "\n")
    if replied:
        (attempt / "answers.jsonl").write_text('{"key": "…"}\n', encoding="utf-8")
    return job, comparison


def say(job: Job, comparison: Comparison) -> None:
    """The judge's word on the comparison, as another judging brought it."""
    MachineJudgment.objects.create(
        workspace=job.workspace, judge_id=job.payload["judge"], comparison=comparison,
        answer="a", flipped=False, a_first="a", b_first="a",
    )  # fmt: skip


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_judging_is_kept_while_something_it_was_answered_is_not_judged(
    people: People, data: Path, state: str
) -> None:
    job, comparison = judging(people, state)
    assert prune_judgings(older_than_days=0) == []
    assert folder_of(job).is_dir()
    say(job, comparison)  # another judging took its answers along
    (removed,) = prune_judgings()
    assert (removed.job, removed.path) == (job, f"judging/job-{job.pk}")
    assert removed.size_bytes > len(row_of(comparison))
    assert list((data / "judging").iterdir()) == []


def test_a_judging_without_a_reply_or_a_project_is_not_gone_on_from(
    people: People, data: Path
) -> None:
    silent, _ = judging(people, "failed", replied=False)
    orphan, _ = judging(people, "failed")
    orphan.payload = {**orphan.payload, "project": 0}
    orphan.save()
    assert [one.job for one in prune_judgings()] == [silent, orphan]


def test_a_judging_that_goes_on_or_ended_lately_is_kept(
    people: People, data: Path, settings: Any
) -> None:
    for state in ("queued", "lost"):
        judging(people, state, replied=False)
    lately, _ = judging(people, "succeeded", days=6)
    assert prune_judgings() == []
    settings.CHECKPOINT_KEEP_DAYS = 0
    assert prune_judgings() == []
    assert [one.job for one in prune_judgings(older_than_days=0, dry_run=True)] == [lately]
    assert [one.job for one in prune_judgings(older_than_days=0)] == [lately]


def test_nothing_but_the_folders_of_judgings_is_touched(people: People, data: Path) -> None:
    root, outside = data / "judging", data / "outside"
    (root / "project-1-judge-1").mkdir(parents=True)
    (root / "job-x").mkdir()
    outside.mkdir()
    linked, _ = judging(people, "failed", replied=False)
    folder_of(linked).rename(outside / "real")
    folder_of(linked).symlink_to(outside / "real")
    (root / ".gone-job-1.ab").mkdir()  # half deleted, and then the power failed
    assert prune_judgings(older_than_days=0) == []
    assert sorted(path.name for path in root.iterdir()) == [
        f"job-{linked.pk}", "job-x", "project-1-judge-1",
    ]  # fmt: skip
    assert (outside / "real" / "data").is_dir()


# The command ------------------------------------------------------------------------------------


def told(*arguments: str) -> str:
    out = StringIO()
    call_command("prune", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_says_what_it_would_free_and_then_frees_it(people: People) -> None:
    run = ended(people, "succeeded", days=1, round_state="promoted")
    assert told() == "nothing to delete\n"
    would = told("--dry-run", "--older-than", "1")
    assert "would be freed, 3 checkpoints" in would
    assert f"{run.folder}/attempts/" in would
    assert steps_left(run) == [1, 2, 3]
    assert "freed, 3 checkpoints" in told("--older-than", "0")
    assert steps_left(run) == []


def test_the_command_names_judgings_too(people: People, data: Path) -> None:
    job, _ = judging(people, "succeeded")
    assert "would be freed, 0 checkpoints and 1 judgings" in told("--dry-run")
    said = told()
    assert f"judging/job-{job.pk}\n" in said
    assert "freed, 0 checkpoints and 1 judgings" in said


def test_the_command_says_why_nothing_goes(people: People, settings: Any) -> None:
    settings.CHECKPOINT_KEEP_DAYS = 0
    assert "CHECKPOINT_KEEP_DAYS is 0" in told()
    with pytest.raises(CommandError, match="'-1' is not a number of days"):
        told("--older-than=-1")
