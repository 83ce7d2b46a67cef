"""Responses, where they came from, and the pairs of them that are put up for judgment."""

from __future__ import annotations

import random

from django.conf import settings
from django.db import models
from django.utils import timezone

from annotate.models.projects import Annotator, Project
from annotate.models.prompts import Prompt
from rlhf_platform.accounts.models import Workspace


class Response(models.Model):
    """One answer to a prompt. Two equal texts are one response with two origins."""

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="responses")
    text = models.TextField(blank=True)
    #: SHA-256 of `text` in UTF-8.
    digest = models.CharField(max_length=64)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["prompt", "digest"], name="response_once_per_prompt")
        ]

    def __str__(self) -> str:
        return self.text[:80]


class ResponseOrigin(models.Model):
    """Where a response came from. `reference` is opaque here: training gives it meaning."""

    class Kind(models.TextChoices):
        MODEL = "model", "Model"
        PERSON = "person", "Person"
        IMPORT = "import", "Import"

    response = models.ForeignKey(Response, on_delete=models.CASCADE, related_name="origins")
    kind = models.CharField(max_length=6, choices=Kind.choices)
    reference = models.CharField(max_length=200)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True
    )
    details = models.JSONField(default=dict)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["response", "kind", "reference"], name="response_origin_once"
            ),
            models.CheckConstraint(
                condition=models.Q(kind__in=["model", "person", "import"]),
                name="response_origin_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind}:{self.reference}"


def random_key() -> int:
    """A draw for the serving order; not a secret."""
    return random.getrandbits(62)


class Comparison(models.Model):
    """Two responses to one prompt, put up for judgment in one project.

    In a project of labels it is one text: a prompt alone, or with `response_a` and no
    `response_b` (docs/decisions/0008-one-queue-for-every-question.md). In a project of rankings
    the queue's row has no response of its own but `candidates`, and every two of these are a
    comparison whose `group` it is; nobody is served those (0009-what-is-asked.md).

    `slots` counts the judgments still wanted beyond those made and those leased:
    overlap = judged + leased + slots. The serving and judging services keep it under a row lock, so
    that an open slot is found through an index.
    """

    class Origin(models.TextChoices):
        IMPORT = "import", "Import"
        COLD_START = "cold_start", "Cold start"
        ON_POLICY = "on_policy", "Two samples of one policy"
        OLD_NEW = "old_new", "Old against new policy"

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    #: Without an index of its own, which SQLite would prefer to the partial one below; the unique
    #: constraint's index begins with the project anyway.
    project = models.ForeignKey(
        Project, on_delete=models.PROTECT, related_name="comparisons", db_index=False
    )
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT)
    response_a = models.ForeignKey(Response, on_delete=models.PROTECT, related_name="+", null=True)
    response_b = models.ForeignKey(Response, on_delete=models.PROTECT, related_name="+", null=True)
    #: The ranking that this pair of candidates belongs to; null for all that the queue serves.
    group = models.ForeignKey(
        "self", on_delete=models.PROTECT, related_name="pairs", null=True, blank=True
    )
    #: The label that a text's source gives; answers are measured by it. Empty where none is known.
    known_label = models.CharField(max_length=64, blank=True)
    #: SHA-256 over the prompt digest and the response digests in sorted order.
    digest = models.CharField(max_length=64)
    origin = models.CharField(max_length=10, choices=Origin.choices)
    #: Opaque: the round or import that selected this pair, e.g. "round:3".
    origin_reference = models.CharField(max_length=200, blank=True)
    #: Probability with which selection drew this pair; null where nothing was drawn.
    propensity = models.FloatField(null=True, blank=True)
    priority = models.SmallIntegerField(default=0)
    random_key = models.BigIntegerField(default=random_key)
    slots = models.PositiveSmallIntegerField()
    #: The only person who may judge it; null for everybody.
    reserved_for = models.ForeignKey(
        Annotator, on_delete=models.SET_NULL, null=True, blank=True, related_name="reserved"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "digest"], name="comparison_once_per_project"
            ),
            models.CheckConstraint(
                condition=~models.Q(response_a=models.F("response_b")),
                name="comparison_of_two_different_responses",
            ),
            models.CheckConstraint(
                condition=models.Q(response_a__isnull=False) | models.Q(response_b__isnull=True),
                name="comparison_fills_a_before_b",
            ),
            models.CheckConstraint(
                condition=models.Q(known_label="") | models.Q(response_b__isnull=True),
                name="comparison_known_label_of_a_text",
            ),
            models.CheckConstraint(
                condition=models.Q(group__isnull=True)
                | models.Q(response_b__isnull=False, slots=0),
                name="comparison_of_a_group_is_a_pair_nobody_is_served",
            ),
            models.CheckConstraint(
                condition=models.Q(propensity__isnull=True)
                | models.Q(propensity__gt=0, propensity__lte=1),
                name="comparison_propensity",
            ),
        ]
        indexes = [
            models.Index(
                "project",
                models.F("priority").desc(),
                "random_key",
                name="comparison_next_open",
                condition=models.Q(slots__gt=0),
            ),
        ]

    def __str__(self) -> str:
        return f"comparison {self.pk}"

    @property
    def pair(self) -> tuple[Response, Response]:
        """Responses A and B. Raises ValueError for a text that waits for a label."""
        if self.response_a is None or self.response_b is None:
            raise ValueError(f"{self} is a text, not two responses")
        return self.response_a, self.response_b

    @property
    def conversation(self) -> list[dict[str, str]]:
        """A text's messages: the prompt's, and the response's where it has one."""
        asked: list[dict[str, str]] = list(self.prompt.messages)
        if self.response_a is not None:
            asked.append({"role": "assistant", "content": self.response_a.text})
        return asked


class Candidate(models.Model):
    """One response of a ranking. `position` is its stored place, from 0: answers name it, and
    which letter a person saw over it is another matter (`Assignment.order`)."""

    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="candidates")
    response = models.ForeignKey(Response, on_delete=models.PROTECT, related_name="+")
    position = models.PositiveSmallIntegerField()

    class Meta:
        ordering = ("position",)
        constraints = [
            models.UniqueConstraint(
                fields=["comparison", "position"], name="candidate_position_once"
            ),
            models.UniqueConstraint(
                fields=["comparison", "response"], name="candidate_response_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.comparison} [{self.position}]"

    @property
    def letter(self) -> str:
        """How pages for researchers call it; annotators see letters in the order drawn for them."""
        return "ABCDEFGHI"[self.position]
