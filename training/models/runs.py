"""Runs of the engine, with the events and metrics read back from their folders."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from annotate.models import Snapshot
from rlhf_platform.accounts.models import Workspace
from training.engine.config import ONLINE_METHODS
from training.models.rounds import Round
from training.models.text_sets import TextSet


class Run(models.Model):
    """One execution of the engine: config, folder, what came out. Its state is its job's."""

    class Method(models.TextChoices):
        SFT = "sft", "Supervised fine-tuning"
        REWARD = "reward", "Reward model"
        DPO = "dpo", "DPO"
        KTO = "kto", "KTO"
        ORPO = "orpo", "ORPO"
        PPO = "ppo", "PPO"
        GRPO = "grpo", "GRPO"
        RLOO = "rloo", "RLOO"
        EVALUATE = "evaluate", "Evaluation"
        SAMPLE = "sample", "Sampling"
        PRETRAIN = "pretrain", "Continued pretraining"
        CLASSIFY = "classify", "Classification"
        ANSWER = "answer", "Answering"
        COMPARE = "compare", "Comparison"

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    round = models.ForeignKey(
        Round, on_delete=models.PROTECT, null=True, blank=True, related_name="runs"
    )
    method = models.CharField(max_length=8, choices=Method.choices)
    #: What a run outside a round reads; one of a round reads its round's snapshot.
    snapshot = models.ForeignKey(
        Snapshot, on_delete=models.PROTECT, null=True, blank=True, related_name="runs"
    )
    text_set = models.ForeignKey(
        TextSet, on_delete=models.PROTECT, null=True, blank=True, related_name="runs"
    )
    #: Documents that are looked up in, beside what the run reads.
    documents = models.ForeignKey(
        TextSet, on_delete=models.PROTECT, null=True, blank=True, related_name="looked_up_by"
    )
    #: Which stage of its round this is (training.services.rounds.STAGES); empty outside a round.
    stage = models.CharField(max_length=20, blank=True)
    #: The engine's config.json, as written to the folder.
    config = models.JSONField()
    #: Folder relative to RUNS_DIR.
    folder = models.CharField(max_length=200, unique=True)
    #: The version whose weights this run starts from or samples.
    version = models.ForeignKey(
        "training.ModelVersion", on_delete=models.PROTECT, related_name="runs_from_here"
    )
    #: The version whose adapter this run made (an earlier one, where the bytes are the same).
    output = models.ForeignKey(
        "training.ModelVersion",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="made_by",
    )
    #: result.json once it ended.
    result = models.JSONField(null=True, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True
    )
    created_at = models.DateTimeField(default=timezone.now)
    #: Of a run outside a round, made before the first try: the same key launches one run.
    launch_key = models.CharField(max_length=64, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "launch_key"],
                condition=~models.Q(launch_key=""),
                name="run_launched_once",
            ),
            models.CheckConstraint(
                condition=models.Q(round__isnull=True)
                | models.Q(snapshot__isnull=True, text_set__isnull=True, documents__isnull=True),
                name="run_of_a_round_reads_its_snapshot",
            ),
            models.CheckConstraint(
                condition=models.Q(
                    method__in=[
                        "sft",
                        "reward",
                        "dpo",
                        "kto",
                        "orpo",
                        "ppo",
                        "grpo",
                        "rloo",
                        "evaluate",
                        "sample",
                        "pretrain",
                        "classify",
                        "answer",
                        "compare",
                    ]
                ),
                name="run_method",
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.pk} ({self.method})"

    @property
    def rows_of(self) -> Snapshot | None:
        """The snapshot whose rows it reads; None for a sampling and for raw texts."""
        return self.round.snapshot if self.round is not None else self.snapshot

    @property
    def is_online(self) -> bool:
        """Whether the policy answers and a reward model scores while it trains."""
        return self.method in ONLINE_METHODS


class RunCalibration(models.Model):
    """What a finished run's memory was, beside what its plan said; later plans learn from it."""

    run = models.OneToOneField(Run, on_delete=models.CASCADE, related_name="calibration")
    #: cpu or gpu, as the planner counts.
    device = models.CharField(max_length=3)
    planned_mb = models.FloatField()
    #: The run's peak; on a processor above the memory of the imported libraries.
    measured_mb = models.FloatField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(device__in=["cpu", "gpu"]), name="calibration_device"
            ),
            models.CheckConstraint(
                condition=models.Q(planned_mb__gt=0, measured_mb__gt=0), name="calibration_above_0"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.run}: {self.measured_mb:.0f} MB of {self.planned_mb:.0f} planned"

    @property
    def error(self) -> float:
        """Relative; positive where the plan said more."""
        return self.planned_mb / self.measured_mb - 1.0

    @property
    def error_percent(self) -> float:
        return abs(100.0 * self.error)


class RunEvent(models.Model):
    """One line of events.jsonl, keyed so that forwarding it twice stores it once."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="events")
    #: Number of the job's attempt, from 1.
    attempt = models.PositiveIntegerField()
    seq = models.PositiveIntegerField()
    kind = models.CharField(max_length=20)
    at = models.DateTimeField()
    body = models.JSONField()

    class Meta:
        ordering = ("attempt", "seq")
        constraints = [
            models.UniqueConstraint(fields=["run", "attempt", "seq"], name="run_event_once")
        ]

    def __str__(self) -> str:
        return f"{self.run} {self.kind} {self.attempt}.{self.seq}"


class RunMetric(models.Model):
    """One point of one curve; a later attempt overwrites the same step."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="metrics")
    name = models.CharField(max_length=60)
    step = models.PositiveIntegerField()
    value = models.FloatField()
    attempt = models.PositiveIntegerField()

    class Meta:
        ordering = ("name", "step")
        constraints = [
            models.UniqueConstraint(fields=["run", "name", "step"], name="run_metric_once")
        ]

    def __str__(self) -> str:
        return f"{self.name}[{self.step}] = {self.value}"


class RunCheckpoint(models.Model):
    """A checkpoint that an attempt wrote while the job was its own."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="checkpoints")
    attempt = models.PositiveIntegerField()
    step = models.PositiveIntegerField()
    #: Folder relative to the run's.
    path = models.CharField(max_length=200)
    #: SHA-256 of its manifest, which holds the hash of every file.
    sha256 = models.CharField(max_length=64, blank=True)
    size_bytes = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)
    #: When its files were deleted to free space.
    removed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("step", "attempt")
        constraints = [models.UniqueConstraint(fields=["run", "path"], name="run_checkpoint_once")]

    def __str__(self) -> str:
        return f"{self.run} step {self.step}"
