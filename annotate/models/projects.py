"""A labelling effort, its versioned guidelines, and those who judge in it."""

from __future__ import annotations

import hmac
import secrets

from django.conf import settings
from django.db import models
from django.utils import timezone

from rlhf_platform.accounts.models import Workspace


class Project(models.Model):
    """A labelling effort: what is asked, how many answers each comparison needs, for how long."""

    class Kind(models.TextChoices):
        COMPARISONS = "comparisons", "Comparisons: which of two responses is better?"
        LABELS = "labels", "Labels: which of a list of labels does a text have?"
        RANKINGS = "rankings", "Rankings: in which order are four to nine responses?"

    class State(models.TextChoices):
        OPEN = "open", "Open"
        PAUSED = "paused", "Paused"
        CLOSED = "closed", "Closed"

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="projects")
    slug = models.SlugField()
    name = models.CharField(max_length=120)
    #: What is asked; never changes, since the queue's rows are of this kind.
    kind = models.CharField(max_length=11, choices=Kind.choices, default=Kind.COMPARISONS)
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    #: How many people judge each comparison.
    overlap = models.PositiveSmallIntegerField(default=1)
    allow_tie = models.BooleanField(default=True)
    allow_both_bad = models.BooleanField(default=True)
    #: Seconds an annotator keeps a comparison before it is offered to someone else.
    lease_s = models.PositiveIntegerField(default=900)
    #: Only people who are named for it judge here.
    restricted = models.BooleanField(default=False)
    #: The most judgments of one person, in all and per day (UTC); null for no limit.
    quota = models.PositiveIntegerField(null=True, blank=True)
    daily_limit = models.PositiveIntegerField(null=True, blank=True)
    #: Judgments a day that a person sets out to make; shown, never enforced.
    daily_goal = models.PositiveIntegerField(null=True, blank=True)
    #: About one in so many of a person's comparisons is one they judged before, sides swapped,
    #: after at least so many others; null for never (docs/decisions/0011-swapped-repeats.md).
    repeat_every = models.PositiveSmallIntegerField(null=True, blank=True)
    repeat_after = models.PositiveSmallIntegerField(default=20)
    #: Hours for which a person may revise a judgment; 0 for never.
    revise_window_h = models.PositiveIntegerField(default=24)
    #: Whether people see how often others agree with them.
    unblinded = models.BooleanField(default=False)
    #: What may hurt to read, shown before anything else; and what the project is about, by the
    #: names that people may opt out of.
    content_warning = models.TextField(blank=True)
    topics = models.JSONField(default=list, blank=True)
    #: What a person agrees to before anything is shown; another text is the next version.
    consent_text = models.TextField(blank=True)
    consent_version = models.PositiveIntegerField(default=1)
    #: Whether texts are blurred until they are clicked.
    blur = models.BooleanField(default=False)
    #: Minutes of judging after which a break is proposed; null for never.
    break_minutes = models.PositiveIntegerField(null=True, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workspace", "slug"], name="project_slug_in_workspace"),
            models.CheckConstraint(
                condition=models.Q(overlap__gte=1, overlap__lte=100),
                name="project_overlap_1_to_100",
            ),
            models.CheckConstraint(
                condition=models.Q(lease_s__gte=10), name="project_lease_at_least_10_s"
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=["open", "paused", "closed"]), name="project_state"
            ),
            models.CheckConstraint(
                condition=models.Q(repeat_every__isnull=True) | models.Q(repeat_every__gte=2),
                name="project_repeats_every_second_at_most",
            ),
            models.CheckConstraint(
                condition=models.Q(repeat_after__gte=1), name="project_repeats_after_another"
            ),
            models.CheckConstraint(
                condition=models.Q(kind__in=["comparisons", "labels", "rankings"]),
                name="project_kind",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def noun(self) -> str:
        """What its queue holds, as pages call one of them."""
        return {self.Kind.LABELS: "text", self.Kind.RANKINGS: "ranking"}.get(
            self.Kind(self.kind), "comparison"
        )


class Guideline(models.Model):
    """One version of what a project asks; a judgment names the version it was made under.

    A project of labels keeps its list here, so that one version says all that was on the screen.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="guidelines")
    version = models.PositiveIntegerField()
    text = models.TextField(blank=True)
    #: `[{"name", "definition", "key"}, …]` in the order shown; empty where responses are compared.
    labels = models.JSONField(default=list)
    #: What is asked beside the answer (annotate/services/questions.py); empty: the answer alone.
    form = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "version"], name="guideline_version_once")
        ]

    def __str__(self) -> str:
        return f"{self.project} guidelines v{self.version}"


def new_pseudonym_key() -> str:
    return secrets.token_hex(32)


class Annotator(models.Model):
    """Whoever judges in a workspace: a member, a person known only from an import, or a model.

    Exports hold an HMAC of the id under `pseudonym_key`; erasing the key makes them anonymous.
    """

    class Kind(models.TextChoices):
        MEMBER = "member", "Member"
        IMPORTED = "imported", "Imported person"
        MODEL = "model", "Model"

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="annotators")
    kind = models.CharField(max_length=8, choices=Kind.choices)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True
    )
    #: For imported people and models: the name their source gives them, e.g. "pandalm:annotator1".
    external_name = models.CharField(max_length=200, blank=True)
    pseudonym_key = models.CharField(max_length=64, default=new_pseudonym_key)
    #: Topics they would rather not read about: such projects and prompts are not shown to them.
    avoids = models.JSONField(default=list, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "user"],
                condition=models.Q(user__isnull=False),
                name="annotator_once_per_member",
            ),
            models.UniqueConstraint(
                fields=["workspace", "kind", "external_name"],
                condition=models.Q(user__isnull=True),
                name="annotator_once_per_external_name",
            ),
            models.CheckConstraint(
                condition=models.Q(kind="member", user__isnull=False, external_name="")
                | (
                    models.Q(kind__in=["imported", "model"], user__isnull=True)
                    & ~models.Q(external_name="")
                ),
                name="annotator_is_a_member_or_external",
            ),
        ]

    def __str__(self) -> str:
        return str(self.user) if self.user else self.external_name

    @property
    def pseudonym(self) -> str:
        """What stands for them where no name may: 12 hex digits, the same in one workspace only."""
        told = f"{self.workspace_id}:{self.pk}".encode()
        return hmac.new(self.pseudonym_key.encode(), told, "sha256").hexdigest()[:12]
