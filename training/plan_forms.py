"""What people fill in to plan a run."""

from __future__ import annotations

from typing import Any

from django import forms

from rlhf_platform.accounts.models import Workspace
from training.engine.config import METHODS
from training.engine.packaged import PACKAGED
from training.forms import offer, parsed, versions_of
from training.models import ModelVersion
from training.selectors.plans import DEFAULT_PRESET, PRESETS


class PlanForm(forms.Form):
    """A base, a method, its settings and a device."""

    version = forms.ModelChoiceField(ModelVersion.objects.none(), required=False, label="Model")
    base = forms.ChoiceField(
        required=False,
        choices=[("", "–"), *((name, f"{name}: {each.title}") for name, each in PACKAGED.items())],
        label="Or a packaged base",
        help_text="Counts before the model.",
    )
    base_config = forms.CharField(
        required=False,
        max_length=50_000,
        label="Or a base's config.json",
        help_text="Pasted from the model's page; nothing is downloaded. Counts before both.",
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "autocomplete": "off"}),
    )
    method = forms.ChoiceField(choices=[(name, name) for name in METHODS])
    device = forms.ChoiceField(choices=[(name, said[0]) for name, said in PRESETS.items()])
    device_gb = forms.FloatField(
        required=False, min_value=0.01, max_value=1e6, label="Or its memory in GB"
    )
    settings = forms.CharField(
        required=False,
        max_length=20_000,
        label="Settings that differ from the defaults (JSON)",
        help_text='For example {"base": {"quantization": "nf4"}, "row_budget": 1024}.',
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "autocomplete": "off"}),
    )
    longest = forms.IntegerField(
        required=False, min_value=1, max_value=10**7, label="Tokens of the longest row, if known"
    )
    rows = forms.IntegerField(
        required=False, min_value=1, max_value=10**9, label="Rows or prompts, if known"
    )

    def __init__(self, *args: object, workspace: Workspace, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        versions = versions_of(workspace).exclude(kind__in=ModelVersion.SILENT)
        offer(self, version=versions)
        self.fields["version"].initial = versions.filter(kind=ModelVersion.Kind.BASE).last()
        self.fields["method"].initial = "dpo"
        self.fields["device"].initial = DEFAULT_PRESET

    def clean_base_config(self) -> dict[str, Any]:
        return parsed(self.cleaned_data["base_config"])

    def clean_settings(self) -> dict[str, Any]:
        return parsed(self.cleaned_data["settings"])

    def clean(self) -> dict[str, Any]:
        found = super().clean() or {}
        known = found.get("version") or found.get("base") or found.get("base_config")
        if not known and not self.errors:
            raise forms.ValidationError("Choose a model, or paste a base's config.json.")
        return found
