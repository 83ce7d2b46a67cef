"""Leases: which annotator holds which comparison, how it is shown, until when."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from annotate.models.comparisons import Comparison
from annotate.models.projects import Annotator, Guideline
from rlhf_platform.accounts.models import Workspace


class Assignment(models.Model):
    """One comparison in one annotator's hands: one live or judged per person and comparison,
    and one repeat of it."""

    class State(models.TextChoices):
        LEASED = "leased", "Leased"
        JUDGED = "judged", "Judged"
        EXPIRED = "expired", "Expired"
        SKIPPED = "skipped", "Skipped"

    class SkipReason(models.TextChoices):
        KNOWLEDGE = "knowledge", "I don't know enough about it"
        LANGUAGE = "language", "A language I don't read well"
        UNCLEAR = "unclear", "It is unclear what is asked"
        UPSETTING = "upsetting", "I'd rather not read this"
        OTHER = "other", "Something else"

    #: States that hold one of the comparison's overlap places.
    HOLDING: ClassVar[tuple[str, ...]] = (State.LEASED, State.JUDGED)

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="assignments")
    annotator = models.ForeignKey(Annotator, on_delete=models.PROTECT, related_name="assignments")
    state = models.CharField(max_length=8, choices=State.choices, default=State.LEASED)
    #: True when response B is shown on the left.
    swapped = models.BooleanField()
    #: Shown to the same person once more, sides swapped: takes no place of the comparison, and what
    #: is said of it measures the person alone.
    is_repeat = models.BooleanField(default=False)
    #: Of a ranking: the stored positions of its candidates in the order shown; empty otherwise.
    order = models.JSONField(default=list)
    #: What is left of this person's shuffled block of sides: s swapped, n not.
    sides_ahead = models.CharField(max_length=7, blank=True)
    guideline = models.ForeignKey(Guideline, on_delete=models.PROTECT, null=True)
    #: Which version of the judging screen showed it.
    screen_version = models.PositiveSmallIntegerField(default=1)
    leased_at = models.DateTimeField(default=timezone.now)
    #: When it came on the screen; null while it is leased ahead of the one that is there.
    shown_at = models.DateTimeField(null=True, default=timezone.now)
    expires_at = models.DateTimeField()
    #: Why it was skipped; empty for every other state, and where no reason was given.
    skip_reason = models.CharField(max_length=9, choices=SkipReason.choices, blank=True)
    skip_note = models.CharField(max_length=500, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(skip_reason="", skip_note="")
                | models.Q(
                    state="skipped",
                    skip_reason__in=["knowledge", "language", "unclear", "upsetting", "other"],
                ),
                name="assignment_skip_reason",
            ),
            models.UniqueConstraint(
                fields=["comparison", "annotator", "is_repeat"],
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
            #: So small that no planner, whatever its statistics, prefers one of all they ever had.
            models.Index(
                fields=["annotator"],
                condition=models.Q(state="leased"),
                name="assignment_leased_to_annotator",
            ),
            models.Index(fields=["annotator", "-id"], name="assignment_newest_of_annotator"),
        ]

    def __str__(self) -> str:
        return f"{self.comparison} with {self.annotator} ({self.state})"
