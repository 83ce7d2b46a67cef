"""Snapshots: frozen, hashed exports of preferences. Never changed after they are made."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from annotate.models.preferences import Aggregation, Preference
from annotate.models.projects import Project
from rlhf_platform.accounts.models import Workspace


class Snapshot(models.Model):
    """An immutable preference dataset: the rule that chose its rows and the hash of their bytes."""

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="snapshots")
    aggregation = models.ForeignKey(Aggregation, on_delete=models.PROTECT)
    number = models.PositiveIntegerField()
    #: How rows were chosen, labelled, split: {"ties": "dropped", "test_fraction": 0.2, "salt": …}.
    rule = models.JSONField()
    #: Counts of rows kept and dropped by reason, agreement, guideline versions, annotators.
    summary = models.JSONField(default=dict)
    #: SHA-256 of the canonical JSONL: rows sorted by the bytes of their digests.
    sha256 = models.CharField(max_length=64)
    n_train = models.PositiveIntegerField()
    n_test = models.PositiveIntegerField()
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="snapshot_number_once")
        ]

    def __str__(self) -> str:
        return f"{self.project} snapshot {self.number}"


class SnapshotRow(models.Model):
    """One row of a snapshot as canonical JSON text, and the preference it came from."""

    class Split(models.TextChoices):
        TRAIN = "train", "Train"
        TEST = "test", "Test"

    snapshot = models.ForeignKey(Snapshot, on_delete=models.CASCADE, related_name="rows")
    preference = models.ForeignKey(
        Preference, on_delete=models.PROTECT, related_name="snapshot_rows"
    )
    split = models.CharField(max_length=5, choices=Split.choices)
    #: SHA-256 of `content` in UTF-8.
    digest = models.CharField(max_length=64)
    #: Place in the canonical order (by digest bytes), from 0.
    position = models.PositiveIntegerField()
    content = models.TextField()

    class Meta:
        ordering = ("position",)
        constraints = [
            models.UniqueConstraint(fields=["snapshot", "digest"], name="snapshot_row_once"),
            models.UniqueConstraint(fields=["snapshot", "position"], name="snapshot_row_position"),
            models.CheckConstraint(
                condition=models.Q(split__in=["train", "test"]), name="snapshot_row_split"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.snapshot} row {self.position} ({self.split})"
