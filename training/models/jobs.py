"""The queue: job rows are the truth, a broker's message is only a wake-up."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from rlhf_platform.accounts.models import Workspace
from training.models.rounds import Round
from training.models.runs import Run


class Job(models.Model):
    """A unit of background work with a lease. Every write a worker makes carries its `token`."""

    class Kind(models.TextChoices):
        RUN = "run", "Engine run"
        MEASURE = "measure", "Measure the distance of texts"
        PUSH_SNAPSHOT = "push_snapshot", "Push a snapshot to the Hub"
        PUSH_MODEL = "push_model", "Push a model to the Hub"
        JUDGE = "judge", "Let a machine judge"

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        LOST = "lost", "Lost"
        SUCCEEDED = "succeeded", "Succeeded"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    class Queue(models.TextChoices):
        DEFAULT = "default", "Default"
        TRAINING = "training", "Training"
        SAMPLING = "sampling", "Sampling"
        JUDGING = "judging", "Judging"

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    kind = models.CharField(max_length=16, choices=Kind.choices)
    queue = models.CharField(max_length=8, choices=Queue.choices)
    run = models.OneToOneField(
        Run, on_delete=models.PROTECT, null=True, blank=True, related_name="job"
    )
    round = models.ForeignKey(
        Round, on_delete=models.PROTECT, null=True, blank=True, related_name="jobs"
    )
    #: Arguments of jobs that are not runs, e.g. {"snapshot": 3, "repo": "me/data"}.
    payload = models.JSONField(default=dict)
    state = models.CharField(max_length=9, choices=State.choices, default=State.QUEUED)
    #: Fencing token of the current claim; null unless running.
    token = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    #: Attempts in a row that ended badly without a checkpoint further on; so many and it fails.
    strikes = models.PositiveSmallIntegerField(default=0)
    max_strikes = models.PositiveSmallIntegerField(default=3)
    cancel_requested = models.BooleanField(default=False)
    #: Why the last attempt ended: oom, preempted, lost, refused, bug … and a sentence.
    reason = models.CharField(max_length=20, blank=True)
    detail = models.TextField(blank=True)
    #: Results of jobs that are not runs, e.g. {"url": …}, or a distance; of a judging, already how
    #: far it is.
    outcome = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    #: When the dispatcher last sent a wake-up for it: the row is its own outbox.
    notified_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    state__in=["queued", "running", "lost", "succeeded", "failed", "cancelled"]
                ),
                name="job_state",
            ),
            models.CheckConstraint(
                condition=models.Q(state="running", token__isnull=False, lease_until__isnull=False)
                | (
                    ~models.Q(state="running")
                    & models.Q(token__isnull=True, lease_until__isnull=True)
                ),
                name="job_token_and_lease_iff_running",
            ),
            models.CheckConstraint(
                condition=models.Q(kind="run", run__isnull=False)
                | (~models.Q(kind="run") & models.Q(run__isnull=True)),
                name="job_run_iff_kind_run",
            ),
        ]
        indexes = [
            models.Index(
                fields=["queue", "created_at"],
                condition=models.Q(state="queued"),
                name="job_waiting",
            ),
            models.Index(
                fields=["lease_until"], condition=models.Q(state="running"), name="job_leases"
            ),
        ]

    def __str__(self) -> str:
        return f"job {self.pk} ({self.kind}, {self.state})"


#: Queues whose jobs take turns in a worker: one loop and one job at a time for each group. The
#: device is shared; a judging waits for somebody else's server for hours, and holds up nothing.
DEVICE = (Job.Queue.TRAINING, Job.Queue.SAMPLING)
TAKING_TURNS: tuple[tuple[Job.Queue, ...], ...] = (
    DEVICE,
    (Job.Queue.JUDGING,),
    (Job.Queue.DEFAULT,),
)


class JobAttempt(models.Model):
    """One claim of a job: who worked on it, under which token, and how that ended."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="attempt_rows")
    #: From 1; events and metrics of a run name it.
    number = models.PositiveIntegerField()
    #: Also the name of the attempt's folder, which nobody else writes to.
    token = models.UUIDField(unique=True)
    #: The machine and process that claimed it.
    worker = models.CharField(max_length=120, blank=True)
    started_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)
    #: The state it left the job in; empty while it runs.
    outcome = models.CharField(max_length=9, choices=Job.State.choices, blank=True)
    reason = models.CharField(max_length=20, blank=True)
    detail = models.TextField(blank=True)

    class Meta:
        ordering = ("number",)
        constraints = [
            models.UniqueConstraint(fields=["job", "number"], name="job_attempt_number_once"),
            models.UniqueConstraint(
                fields=["job"],
                condition=models.Q(ended_at__isnull=True),
                name="job_attempt_one_open",
            ),
            models.CheckConstraint(
                condition=models.Q(ended_at__isnull=True, outcome="")
                | (models.Q(ended_at__isnull=False) & ~models.Q(outcome="")),
                name="job_attempt_ended_iff_outcome",
            ),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number} of job {self.job_id}"


class JobEvent(models.Model):
    """One transition of one job."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="events")
    from_state = models.CharField(max_length=9)
    to_state = models.CharField(max_length=9)
    attempt = models.PositiveIntegerField()
    reason = models.CharField(max_length=20, blank=True)
    detail = models.TextField(blank=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.job_id}: {self.from_state} → {self.to_state}"
