"""One turn of the loop."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.utils import timezone

from annotate.models import Project, PromptSet, Snapshot
from rlhf_platform.accounts.models import Workspace
from training.models.policies import ModelVersion


class Round(models.Model):
    """Snapshot → reward model → policy → evaluation → samples → comparisons → verdict."""

    class Method(models.TextChoices):
        SFT = "sft", "SFT only"
        DPO = "dpo", "DPO"
        KTO = "kto", "KTO"
        ORPO = "orpo", "ORPO"
        PPO = "ppo", "PPO"
        GRPO = "grpo", "GRPO"
        RLOO = "rloo", "RLOO"

    class State(models.TextChoices):
        DRAFT = "draft", "Draft"
        TRAINING_SFT = "training_sft", "Fine-tuning"
        TRAINING_REWARD = "training_reward", "Training the reward model"
        TRAINING_POLICY = "training_policy", "Training the policy"
        EVALUATING = "evaluating", "Evaluating"
        SAMPLING = "sampling", "Sampling"
        AWAITING_VERDICT = "awaiting_verdict", "Awaiting verdict"
        PROMOTED = "promoted", "Promoted"
        REJECTED = "rejected", "Rejected"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    FINAL: ClassVar[tuple[str, ...]] = (
        State.PROMOTED,
        State.REJECTED,
        State.FAILED,
        State.CANCELLED,
    )

    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="rounds")
    number = models.PositiveIntegerField()
    snapshot = models.ForeignKey(Snapshot, on_delete=models.PROTECT, related_name="rounds")
    method = models.CharField(max_length=4, choices=Method.choices)
    state = models.CharField(max_length=16, choices=State.choices, default=State.DRAFT)
    #: Where the policy starts and what it is compared with (a base or an earlier policy).
    reference = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, related_name="rounds_from_here"
    )
    #: Given at launch to reuse a reward model; otherwise filled when this round trains one.
    reward_version = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    #: The policy this round made.
    policy_version = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    #: Prompts that the new policy answers for the annotators.
    fresh_prompts = models.ForeignKey(PromptSet, on_delete=models.PROTECT, related_name="+")
    #: Settings per stage as asked at launch: {"sft": {…}|null, "reward": {…}, "policy": {…}, …}.
    config = models.JSONField(default=dict)
    #: Why it failed or was cancelled, in plain words.
    reason = models.TextField(blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True
    )
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    #: Made by whoever launches, before the first try: the same key launches one round.
    launch_key = models.CharField(max_length=64, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "launch_key"],
                condition=~models.Q(launch_key=""),
                name="round_launched_once",
            ),
            models.UniqueConstraint(fields=["project", "number"], name="round_number_once"),
            models.CheckConstraint(
                condition=models.Q(method__in=["sft", "dpo", "kto", "orpo", "ppo", "grpo", "rloo"]),
                name="round_method",
            ),
            models.CheckConstraint(
                condition=models.Q(
                    state__in=[
                        "draft",
                        "training_sft",
                        "training_reward",
                        "training_policy",
                        "evaluating",
                        "sampling",
                        "awaiting_verdict",
                        "promoted",
                        "rejected",
                        "failed",
                        "cancelled",
                    ]
                ),
                name="round_state",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.project} round {self.number} ({self.method})"

    @property
    def over(self) -> bool:
        """Whether nothing moves by itself any more: it has ended, or waits for a verdict."""
        return self.state in (*self.FINAL, self.State.AWAITING_VERDICT)
