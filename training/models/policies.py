"""The registry: bases, the adapters trained on them, and models that were trained whole."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

from annotate.models import Project
from rlhf_platform.accounts.models import Workspace


class ModelVersion(models.Model):
    """A base, a base plus ONE adapter, or a model whose own weights were trained.

    Content-addressed: the digest names the bytes. A whole model is a base of its own: `base` names
    its folder.

    A child's adapter was initialised from its parent's weights, so stock PEFT loads it alone;
    the chain of parents is lineage, not something to load.
    """

    class Kind(models.TextChoices):
        BASE = "base", "Base"
        SFT = "sft", "Fine-tuned policy"
        POLICY = "policy", "Aligned policy"
        REWARD = "reward", "Reward model"
        PRETRAINED = "pretrained", "Pretrained further"
        CLASSIFIER = "classifier", "Classifier"

    #: Kinds that give scores or labels and write no text.
    SILENT: ClassVar[tuple[str, ...]] = (Kind.REWARD, Kind.CLASSIFIER)

    class State(models.TextChoices):
        CANDIDATE = "candidate", "Candidate"
        PROMOTED = "promoted", "Promoted"
        REJECTED = "rejected", "Rejected"

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="versions")
    project = models.ForeignKey(
        Project, on_delete=models.PROTECT, null=True, blank=True, related_name="versions"
    )
    kind = models.CharField(max_length=10, choices=Kind.choices)
    state = models.CharField(max_length=9, choices=State.choices, default=State.CANDIDATE)
    name = models.CharField(max_length=160)
    #: The engine's `base` section: {"source", "revision", "dtype", "quantization", "double_quant"}.
    base = models.JSONField()
    parent = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="children"
    )
    run = models.OneToOneField(
        "training.Run", on_delete=models.PROTECT, null=True, blank=True, related_name="made"
    )
    #: Adapter folder relative to RUNS_DIR; empty for a base and for a whole model.
    adapter_path = models.CharField(max_length=400, blank=True)
    #: Folder of a whole model relative to RUNS_DIR, which `base` names too; else empty.
    model_path = models.CharField(max_length=400, blank=True)
    #: SHA-256 over the files of adapter or model (for a base: over its spec).
    digest = models.CharField(max_length=64)
    metrics = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "digest"], name="version_once_per_workspace"
            ),
            models.CheckConstraint(
                condition=models.Q(kind="base", adapter_path="", model_path="", parent__isnull=True)
                | (
                    models.Q(
                        kind__in=["sft", "policy", "reward", "pretrained", "classifier"],
                        model_path="",
                    )
                    & ~models.Q(adapter_path="")
                )
                | (
                    models.Q(
                        kind__in=["sft", "policy", "pretrained", "classifier"], adapter_path=""
                    )
                    & ~models.Q(model_path="")
                ),
                name="version_is_a_base_an_adapter_or_a_model",
            ),
            models.CheckConstraint(
                condition=models.Q(state__in=["candidate", "promoted", "rejected"]),
                name="version_state",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def writes(self) -> bool:
        """Whether it answers prompts."""
        return self.kind not in self.SILENT
