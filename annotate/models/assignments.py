"""Leases: which annotator holds which comparison, how it is shown, until when."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from annotate.models.comparisons import Comparison
from annotate.models.projects import Annotator, Guideline
from rlhf_platform.accounts.models import Workspace


class Assignment(models.Model):
    """One comparison in one annotator's hands: one live or judged per person and comparison."""

    class State(models.TextChoices):
        LEASED = "leased", "Leased"
        JUDGED = "judged", "Judged"
        EXPIRED = "expired", "Expired"
        SKIPPED = "skipped", "Skipped"

    #: States that hold one of the comparison's overlap places.
    HOLDING: ClassVar[tuple[str, ...]] = (State.LEASED, State.JUDGED)

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="assignments")
    annotator = models.ForeignKey(Annotator, on_delete=models.PROTECT, related_name="assignments")
    state = models.CharField(max_length=8, choices=State.choices, default=State.LEASED)
    #: True when response B is shown on the left.
    swapped = models.BooleanField()
    #: What is left of this person's shuffled block of sides: s swapped, n not.
    sides_ahead = models.CharField(max_length=7, blank=True)
    guideline = models.ForeignKey(Guideline, on_delete=models.PROTECT, null=True)
    #: Which version of the judging screen showed it.
    screen_version = models.PositiveSmallIntegerField(default=1)
    leased_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["comparison", "annotator"],
                condition=models.Q(state__in=["leased", "judged", "skipped"]),
                name="assignment_once_per_annotator",
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=["leased", "judged", "expired", "skipped"]),
                name="assignment_state",
            ),
        ]
        indexes = [
            models.Index(
                fields=["workspace", "expires_at"],
                condition=models.Q(state="leased"),
                name="assignment_live_leases",
            ),
            models.Index(fields=["annotator", "state"], name="assignment_of_annotator"),
            models.Index(fields=["annotator", "-id"], name="assignment_newest_of_annotator"),
        ]

    def __str__(self) -> str:
        return f"{self.comparison} with {self.annotator} ({self.state})"
