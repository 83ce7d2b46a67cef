"""What people fill in to start work on models. Choices never leave the workspace."""

from __future__ import annotations

import json
import uuid
from typing import Any, cast

from django import forms
from django.db.models import QuerySet
from rest_framework.serializers import ValidationError as NotStorable

from annotate.models import Project, PromptSet, Snapshot
from rlhf_platform.accounts.models import Workspace
from training.api.settings_field import SettingsField
from training.models import ModelVersion, Round

#: One sentence for the choice of a method.
METHODS = {
    Round.Method.DPO: (
        "DPO",
        "Learns from preferred and rejected answers directly. Stable and quick; start here.",
    ),
    Round.Method.KTO: (
        "KTO",
        "Learns from answers that were liked or disliked, each by itself; for noisy or one-sided "
        "labels.",
    ),
    Round.Method.ORPO: (
        "ORPO",
        "Imitates preferred answers and pushes rejected ones away in one pass. Needs no reference.",
    ),
    Round.Method.PPO: (
        "PPO",
        "The policy answers, the reward model scores, the policy follows. Slower; it can go beyond "
        "the answers in the data.",
    ),
    Round.Method.GRPO: (
        "GRPO",
        "Several answers to each prompt compete for the reward model's score. Simpler than PPO: "
        "no value to learn.",
    ),
    Round.Method.RLOO: (
        "RLOO",
        "As GRPO, but each answer is measured against the mean of the others. Few settings, "
        "unbiased.",
    ),
    Round.Method.SFT: (
        "SFT only",
        "Imitates the preferred answers. No reward model, no comparison of the two.",
    ),
}


class SnapshotField(forms.ModelChoiceField):
    def label_from_instance(self, obj: Snapshot) -> str:
        return f"{obj}: {obj.n_train} train rows, {obj.n_test} held out"


class PromptSetField(forms.ModelChoiceField):
    def label_from_instance(self, obj: PromptSet) -> str:
        return f"{obj} ({obj.get_use_display().lower()})"


def versions_of(workspace: Workspace) -> QuerySet[ModelVersion]:
    return ModelVersion.objects.filter(workspace=workspace).order_by("-pk")


def offer(form: forms.Form, **choices: QuerySet) -> None:
    """Give each choice field its rows, and choose the newest where nothing was chosen."""
    for name, queryset in choices.items():
        cast(forms.ModelChoiceField, form.fields[name]).queryset = queryset


def parsed(text: str) -> dict[str, Any]:
    """A JSON object that somebody pasted. Raises forms.ValidationError saying what is wrong."""
    try:
        return cast(dict[str, Any], SettingsField().to_internal_value(json.loads(text or "{}")))
    except json.JSONDecodeError as error:
        raise forms.ValidationError(
            f"This is not JSON: {error.msg} (line {error.lineno}, column {error.colno})."
        ) from error
    except RecursionError:
        raise forms.ValidationError("Nested too deeply.") from None
    except NotStorable as error:
        raise forms.ValidationError(str(error.args[0])) from error


class LaunchForm(forms.Form):
    """What a round needs; everything else has defaults (training.services.presets)."""

    snapshot = SnapshotField(Snapshot.objects.none(), empty_label=None)
    method = forms.ChoiceField(choices=Round.Method.choices, initial=Round.Method.DPO)
    reference = forms.ModelChoiceField(
        ModelVersion.objects.none(), empty_label=None, label="Start from, and compare with"
    )
    reward_version = forms.ModelChoiceField(
        ModelVersion.objects.none(),
        required=False,
        empty_label="train one on this snapshot",
        label="Reward model",
        help_text="Not used by SFT. One from an earlier round must be of the same base.",
    )
    fresh_prompts = PromptSetField(
        PromptSet.objects.none(),
        empty_label=None,
        label="Prompts the new policy answers",
        help_text="Its answers go back to the annotators as new comparisons.",
    )
    tuning = forms.ChoiceField(
        choices=[
            ("lora", "An adapter (LoRA; on a 4-bit base QLoRA)"),
            ("full", "Every weight (full fine-tuning)"),
        ],
        required=False,
        label="Train",
        help_text="Every weight: SFT and DPO only, from an unquantized base; needs several times "
        "the memory, and has no reward model and no evaluation.",
    )
    config = forms.CharField(
        required=False,
        max_length=20_000,
        label="Settings that differ from the defaults (JSON)",
        help_text='By stage, for example {"policy": {"row_budget": 256, "optim": {"lr": 1e-4}}}.',
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false", "autocomplete": "off"}),
    )
    #: Made with the form: pressing twice, or sending it again, launches one round.
    launch_key = forms.CharField(required=False, max_length=64, widget=forms.HiddenInput)

    def __init__(self, *args: object, workspace: Workspace, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        versions = versions_of(workspace)
        snapshots = Snapshot.objects.filter(
            workspace=workspace, project__kind=Project.Kind.COMPARISONS
        ).select_related("project")
        offer(
            self,
            snapshot=snapshots.order_by("-pk"),
            fresh_prompts=PromptSet.objects.filter(workspace=workspace).order_by("-pk"),
            reference=versions.exclude(kind__in=ModelVersion.SILENT),
            reward_version=versions.filter(kind=ModelVersion.Kind.REWARD),
        )

        # The newest version is often a candidate nobody has judged; start from what stands.
        standing = versions.filter(state=ModelVersion.State.PROMOTED).exclude(
            kind=ModelVersion.Kind.REWARD
        )
        base = versions.filter(kind=ModelVersion.Kind.BASE).order_by("pk")
        self.fields["reference"].initial = standing.first() or base.first()
        self.fields["launch_key"].initial = uuid.uuid4().hex

    def clean_config(self) -> dict[str, Any]:
        return parsed(self.cleaned_data["config"])

    def clean(self) -> dict[str, Any]:
        found = super().clean() or {}
        tuning = found.pop("tuning", "")
        if tuning == "full" and "config" in found:
            found["config"] = {**found["config"], "tuning": "full"}
        return found

    def renew_key(self) -> None:
        """Let what is in the form now be launched, though its key launched something else."""
        sent = {name: self.data[name] for name in self.data}
        self.data = sent | {"launch_key": uuid.uuid4().hex}

    @property
    def methods(self) -> list[tuple[str, str, str, bool]]:
        """(value, name, sentence, chosen) of every method."""
        chosen = self["method"].value()
        return [(str(value), *said, value == chosen) for value, said in METHODS.items()]


class SampleForm(forms.Form):
    """Which prompts a version answers, and in which project the answers are compared."""

    project = forms.ModelChoiceField(Project.objects.none(), empty_label=None)
    prompt_set = PromptSetField(PromptSet.objects.none(), empty_label=None, label="Prompts")

    def __init__(self, *args: object, workspace: Workspace, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        offer(
            self,
            project=Project.objects.filter(
                workspace=workspace, kind=Project.Kind.COMPARISONS
            ).order_by("name"),
            prompt_set=PromptSet.objects.filter(workspace=workspace).order_by("-pk"),
        )
