"""Machines that judge, kept apart from people: no count of people or their agreement sees them.

A judge is versioned by everything that decides its verdicts; its judgments are rows of their own;
and nobody trains on them before an admin has accepted a calibration against people.
"""

from __future__ import annotations

from django.conf import settings as site
from django.db import models
from django.utils import timezone

from annotate.models.comparisons import Comparison
from annotate.models.projects import Project
from rlhf_platform.accounts.models import Workspace


class JudgeVersion(models.Model):
    """One version of a judge: its rubric, and the model and settings it is asked with."""

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="judges")
    name = models.SlugField()
    version = models.PositiveIntegerField()
    rubric = models.TextField()
    #: What else decides the verdicts: base or address, adapter, how, wording. Never a key.
    settings = models.JSONField()
    #: SHA-256 over the canonical JSON of rubric and settings.
    digest = models.CharField(max_length=64)
    created_by = models.ForeignKey(
        site.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "name", "version"], name="judge_version_once"
            ),
            models.UniqueConstraint(
                fields=["workspace", "name", "digest"], name="judge_digest_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


class MachineJudgment(models.Model):
    """What one version of a judge said of one comparison, asked in both orders."""

    class Answer(models.TextChoices):
        A = "a", "A is better"
        B = "b", "B is better"
        TIE = "tie", "Tie"
        #: One of the two replies held no verdict.
        NONE = "none", "No verdict"

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    judge = models.ForeignKey(JudgeVersion, on_delete=models.PROTECT, related_name="judgments")
    comparison = models.ForeignKey(
        Comparison, on_delete=models.PROTECT, related_name="machine_judgments"
    )
    answer = models.CharField(max_length=4, choices=Answer.choices)
    #: The two orders chose oppositely: the verdict followed the place, and is a tie.
    flipped = models.BooleanField()
    #: What was said when A was shown first, and when B was: "a", "b", "tie" or "none".
    a_first = models.CharField(max_length=4, choices=Answer.choices)
    b_first = models.CharField(max_length=4, choices=Answer.choices)
    #: P(A better) where the judge gives probabilities; ties count half.
    probability = models.FloatField(null=True, blank=True)
    #: Its words in both orders: a machine's text, which may say anything.
    reasons = models.JSONField(default=list)
    tokens = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["judge", "comparison"], name="machine_judgment_once_per_judge"
            ),
            models.CheckConstraint(
                condition=models.Q(answer__in=["a", "b", "tie", "none"]),
                name="machine_judgment_answer",
            ),
            models.CheckConstraint(
                condition=models.Q(flipped=False) | models.Q(answer="tie"),
                name="machine_judgment_flip_is_a_tie",
            ),
            models.CheckConstraint(
                condition=models.Q(probability__isnull=True)
                | models.Q(probability__gte=0, probability__lte=1),
                name="machine_judgment_probability",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.judge} on {self.comparison}: {self.answer}"


class Calibration(models.Model):
    """The numbers of a judge against people in one project, as an admin saw and accepted them."""

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    judge = models.ForeignKey(JudgeVersion, on_delete=models.PROTECT, related_name="calibrations")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="calibrations")
    #: Comparisons that both the judge and people had decided on.
    n = models.PositiveIntegerField()
    #: `annotate.statistics.calibration.Figures`, in full.
    figures = models.JSONField()
    #: Why this agreement is enough, in the admin's words.
    reason = models.TextField(blank=True)
    accepted_by = models.ForeignKey(
        site.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True
    )
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.judge} in {self.project}: {self.n} comparisons"
