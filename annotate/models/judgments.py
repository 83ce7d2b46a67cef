"""Judgments: what people said. Rows are only ever added."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils import timezone

from annotate.models.assignments import Assignment
from annotate.models.comparisons import Comparison
from annotate.models.projects import Annotator, Guideline
from rlhf_platform.accounts.models import Workspace


class Answer(models.TextChoices):
    """What a judgment says of responses A and B (not of left and right)."""

    A = "a", "A is better"
    B = "b", "B is better"
    TIE = "tie", "Tie"
    BOTH_BAD = "both_bad", "Both bad"
    #: A text's label, which the row names beside it.
    LABEL = "label", "Label"
    #: A ranking of candidates; what it says of every two of them is a judgment of their pair.
    RANKING = "ranking", "Ranking"
    #: An undo: this row takes back the one it supersedes and says nothing itself.
    WITHDRAWN = "withdrawn", "Taken back"


class JudgmentQuerySet(models.QuerySet["Judgment"]):
    def standing(self) -> JudgmentQuerySet:
        """All that people did and stand by, repeats too: what is theirs to see, revise, take back.

        Not superseded and not themselves a withdrawal.
        """
        return self.filter(superseded_by__isnull=True).exclude(answer=Answer.WITHDRAWN)

    def current(self) -> JudgmentQuerySet:
        """Judgments that stand and count: one per person and comparison, no repeats."""
        return self.standing().filter(is_repeat=False)

    def with_word(self) -> Any:
        """Each with `word`, what agreement is measured on: the label, or else the answer.

        A ranking has none: its pairs have.
        Any, since `word` is no field of the model.
        """
        said = models.Case(models.When(label="", then="answer"), default="label")
        return self.exclude(answer=Answer.RANKING).annotate(word=said)


class Judgment(models.Model):
    """One annotator's answer to one comparison, at one time, under one version of the guidelines.

    A later word of the same person is a new row whose `supersedes` names this one; the two unique
    constraints make that a single chain per person and comparison (and one of its repeat), on both
    databases.
    """

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    #: Both without an index of their own: two below begin with them. Alone, the person's would be
    #: preferred by a PostgreSQL without statistics, and hold all they ever said.
    comparison = models.ForeignKey(
        Comparison, on_delete=models.PROTECT, related_name="judgments", db_index=False
    )
    annotator = models.ForeignKey(
        Annotator, on_delete=models.PROTECT, related_name="judgments", db_index=False
    )
    #: Null for imported judgments.
    assignment = models.ForeignKey(
        Assignment, on_delete=models.PROTECT, null=True, blank=True, related_name="judgments"
    )
    #: What was said when the comparison was shown to the same person once more, sides swapped. It
    #: never supersedes the first word, and counts for nothing but the person's consistency.
    is_repeat = models.BooleanField(default=False)
    guideline = models.ForeignKey(Guideline, on_delete=models.PROTECT, null=True, blank=True)
    answer = models.CharField(max_length=9, choices=Answer.choices)
    #: The name of a label of the guideline version; empty for every other answer.
    label = models.CharField(max_length=64, blank=True)
    #: True when response B was shown on the left; null where it is not known (imports).
    swapped = models.BooleanField(null=True)
    rationale = models.TextField(blank=True)
    #: How much better, in steps from the middle: negative for A, positive for B.
    strength = models.SmallIntegerField(null=True, blank=True)
    #: Answers to the other questions of the guideline's form, about A and B
    #: (annotate/services/questions.py says what it may hold).
    details = models.JSONField(default=dict)
    #: Milliseconds the pair was in view and the person active; null for imports.
    active_ms = models.PositiveIntegerField(null=True, blank=True)
    #: Made by the client before the first send; the same key never stores two rows.
    idempotency_key = models.CharField(max_length=120)
    #: SHA-256 of what was sent under the key, to tell a repeat from a reuse.
    body_digest = models.CharField(max_length=64)
    supersedes = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="superseded_by"
    )
    created_at = models.DateTimeField(default=timezone.now)

    #: Set on the row that answers a repeated send; not stored.
    repeated = False

    objects = JudgmentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["annotator", "idempotency_key"], name="judgment_key_once_per_annotator"
            ),
            models.UniqueConstraint(
                fields=["comparison", "annotator", "is_repeat"],
                condition=models.Q(supersedes__isnull=True),
                name="judgment_one_chain_per_annotator",
            ),
            models.CheckConstraint(
                condition=models.Q(answer__in=Answer.values), name="judgment_answer"
            ),
            models.CheckConstraint(
                condition=(models.Q(answer="label") & ~models.Q(label=""))
                | (~models.Q(answer="label") & models.Q(label="")),
                name="judgment_label_is_named",
            ),
            models.CheckConstraint(
                condition=models.Q(strength__isnull=True)
                | models.Q(answer="a", strength__lt=0)
                | models.Q(answer="b", strength__gt=0),
                name="judgment_strength_goes_with_its_side",
            ),
            models.CheckConstraint(
                condition=~models.Q(answer="withdrawn") | models.Q(supersedes__isnull=False),
                name="judgment_withdrawal_supersedes",
            ),
        ]
        indexes = [
            models.Index(fields=["annotator", "created_at"], name="judgment_of_annotator"),
            models.Index(fields=["comparison", "annotator"], name="judgment_of_comparison"),
            models.Index(
                fields=["comparison"],
                condition=models.Q(is_repeat=True),
                name="judgment_repeats",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.annotator} on {self.comparison}: {self.in_words}"

    @property
    def in_words(self) -> str:
        return self.label or str(Answer(self.answer).label)
