"""A person's part in a project, and what they told the admins about it."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from annotate.models.projects import Annotator, Project
from rlhf_platform.accounts.models import Workspace


class Participation(models.Model):
    """Whether a person is named for a project, how much they may do, what they agreed to."""

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="participations")
    annotator = models.ForeignKey(
        Annotator, on_delete=models.CASCADE, related_name="participations", db_index=False
    )
    #: Named for the project; in a restricted one nobody else judges.
    named = models.BooleanField(default=False)
    #: The most judgments of this person here; null for the project's quota.
    quota = models.PositiveIntegerField(null=True, blank=True)
    #: The version of the project's consent text they accepted, and when.
    consent_version = models.PositiveIntegerField(null=True, blank=True)
    consented_at = models.DateTimeField(null=True, blank=True)
    #: Where their search of the queue begins: all open comparisons before it were theirs already.
    search_priority = models.SmallIntegerField(null=True, blank=True)
    search_key = models.BigIntegerField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["annotator", "project"], name="participation_once_per_person"
            ),
            models.CheckConstraint(
                condition=models.Q(consent_version__isnull=True, consented_at__isnull=True)
                | models.Q(consent_version__isnull=False, consented_at__isnull=False),
                name="participation_consent_has_a_time",
            ),
            models.CheckConstraint(
                condition=models.Q(search_priority__isnull=True, search_key__isnull=True)
                | models.Q(search_priority__isnull=False, search_key__isnull=False),
                name="participation_search_is_whole",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.annotator} in {self.project}"


class Report(models.Model):
    """What a person told the admins about a project: distressing content, unclear rules."""

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="reports")
    annotator = models.ForeignKey(Annotator, on_delete=models.PROTECT, related_name="reports")
    text = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)
    settled_at = models.DateTimeField(null=True, blank=True)
    settled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True
    )

    class Meta:
        constraints = [
            models.CheckConstraint(condition=~models.Q(text=""), name="report_says_something"),
        ]

    def __str__(self) -> str:
        return f"{self.annotator} on {self.project}: {self.text[:80]}"
