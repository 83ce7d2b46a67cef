"""Belief: what the judgments of a comparison amount to, under a stated rule."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from annotate.models.comparisons import Comparison
from annotate.models.judges import JudgeVersion, MachineJudgment
from annotate.models.judgments import Judgment
from annotate.models.projects import Project
from rlhf_platform.accounts.models import Workspace


class Aggregation(models.Model):
    """One pass over a project's judgments under one rule. Later passes are later rows."""

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="aggregations")
    #: The rule in full, e.g. {"name": "majority", "version": 1, "ties": "kept", …}.
    rule = models.JSONField()
    #: Counts by outcome and agreement figures at the time.
    summary = models.JSONField(default=dict)
    #: The machine whose judgments stand where no person judged; null for people's alone.
    judge = models.ForeignKey(JudgeVersion, on_delete=models.PROTECT, null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.project}: {self.rule.get('name')} of {self.created_at:%Y-%m-%d %H:%M}"


class Preference(models.Model):
    """The belief about one comparison: P(A better), the counts and judgments behind it.

    Of a text it holds the label, the probability that it is right, and the counts by label.
    """

    class Outcome(models.TextChoices):
        A = "a", "A is better"
        B = "b", "B is better"
        TIE = "tie", "Tie"
        BOTH_BAD = "both_bad", "Both bad"
        LABEL = "label", "Label"

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    aggregation = models.ForeignKey(
        Aggregation, on_delete=models.CASCADE, related_name="preferences"
    )
    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="preferences")
    outcome = models.CharField(max_length=8, choices=Outcome.choices)
    #: The label believed in where the outcome is "label"; else empty.
    label = models.CharField(max_length=64, blank=True)
    #: How often each label was given: `{"spam": 2, "ham": 1}`; empty for two responses.
    label_counts = models.JSONField(default=dict)
    #: P(response A is better than response B) in [0, 1], ties count half; or P(label).
    probability = models.FloatField()
    n_a = models.PositiveIntegerField(default=0)
    n_b = models.PositiveIntegerField(default=0)
    n_tie = models.PositiveIntegerField(default=0)
    n_both_bad = models.PositiveIntegerField(default=0)
    judgments = models.ManyToManyField(Judgment, related_name="preferences")
    #: Set where no person judged and a machine did: the counts are then all zero.
    machine_judgment = models.ForeignKey(
        MachineJudgment, on_delete=models.PROTECT, null=True, blank=True, related_name="preferences"
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["aggregation", "comparison"], name="preference_once_per_aggregation"
            ),
            models.CheckConstraint(
                condition=models.Q(probability__gte=0, probability__lte=1),
                name="preference_probability",
            ),
            models.CheckConstraint(
                condition=models.Q(outcome__in=["a", "b", "tie", "both_bad", "label"]),
                name="preference_outcome",
            ),
            models.CheckConstraint(
                condition=(models.Q(outcome="label") & ~models.Q(label=""))
                | (~models.Q(outcome="label") & models.Q(label="")),
                name="preference_label_is_named",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.comparison}: {self.label or self.outcome} ({self.probability:.2f})"
