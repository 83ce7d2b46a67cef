"""Flags: what people found wrong with a comparison, for the admins of the workspace."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from annotate.models.comparisons import Comparison
from annotate.models.projects import Annotator
from rlhf_platform.accounts.models import Workspace


class Flag(models.Model):
    """One thing one person found wrong with one comparison. It changes nothing by itself."""

    class Kind(models.TextChoices):
        UNSAFE = "unsafe", "Unsafe: dangerous, hateful or sexual"
        PRIVATE = "private", "Private data of somebody"
        OFF_TOPIC = "off_topic", "Does not belong in this project"
        BROKEN = "broken", "Broken: cut off, garbled or empty"

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    comparison = models.ForeignKey(Comparison, on_delete=models.PROTECT, related_name="flags")
    annotator = models.ForeignKey(Annotator, on_delete=models.PROTECT, related_name="flags")
    kind = models.CharField(max_length=9, choices=Kind.choices)
    note = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    #: When an admin had dealt with it, and who; null until then.
    settled_at = models.DateTimeField(null=True, blank=True)
    settled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["comparison", "annotator", "kind"], name="flag_once_per_kind_and_annotator"
            ),
            models.CheckConstraint(
                condition=models.Q(kind__in=["unsafe", "private", "off_topic", "broken"]),
                name="flag_kind",
            ),
        ]
        indexes = [
            models.Index(
                fields=["workspace", "created_at"],
                condition=models.Q(settled_at__isnull=True),
                name="flag_open",
            )
        ]

    def __str__(self) -> str:
        return f"{self.comparison}: {self.kind}"
