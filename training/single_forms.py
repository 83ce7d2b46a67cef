"""What people fill in to launch one method outside a round, and to ask which way to go."""

from __future__ import annotations

import json
from typing import Any

from django import forms

from annotate.models import Snapshot
from rlhf_platform.accounts.models import Workspace
from training.engine.advisor_case import CHANGES, DOMAIN_WORDS, FORMATS, TASKS
from training.forms import offer, parsed, versions_of
from training.models import ModelVersion, TextSet
from training.services.methods import LAUNCHABLE, TUNINGS

UNKNOWN = ("", "not known")


class TextSetField(forms.ModelChoiceField):
    def label_from_instance(self, obj: TextSet) -> str:
        return (
            f"{obj}: {obj.get_kind_display().lower()}, {obj.n_train} and {obj.n_held_out} held out"
        )


class SingleRunForm(forms.Form):
    """One method, what it starts from, what it reads."""

    method = forms.ChoiceField(choices=[(name, each.title) for name, each in LAUNCHABLE.items()])
    version = forms.ModelChoiceField(ModelVersion.objects.none(), label="Starts from")
    snapshot = forms.ModelChoiceField(
        Snapshot.objects.none(),
        required=False,
        help_text="Labels for classification, compared answers for the others that read one.",
    )
    text_set = TextSetField(
        TextSet.objects.none(),
        required=False,
        label="Text set",
        help_text="Instead of a snapshot: documents for pretraining, labelled texts for "
        "classification, conversations for fine-tuning, questions for answering and comparisons.",
    )
    documents = TextSetField(
        TextSet.objects.none(),
        required=False,
        label="Documents to look things up in",
        help_text="For answering and comparisons; without any there is no RAG.",
    )
    tuning = forms.ChoiceField(
        choices=[(name, f"{title}: {sentence}") for name, (title, sentence) in TUNINGS.items()],
        initial="lora",
        widget=forms.RadioSelect,
    )
    settings = forms.CharField(
        required=False,
        max_length=20_000,
        label="Settings that differ from the defaults (JSON)",
        help_text='For example {"optim": {"max_steps": 50}}.',
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false", "autocomplete": "off"}),
    )
    launch_key = forms.CharField(max_length=64, widget=forms.HiddenInput)

    def __init__(self, *args: object, workspace: Workspace, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        bases = versions_of(workspace).filter(kind=ModelVersion.Kind.BASE)
        self.fields["version"].initial = bases.last()
        offer(
            self,
            version=versions_of(workspace),
            snapshot=Snapshot.objects.filter(project__workspace=workspace).order_by("-pk"),
            text_set=TextSet.objects.filter(workspace=workspace).order_by("-pk"),
            documents=TextSet.objects.filter(workspace=workspace, kind="documents").order_by("-pk"),
        )

    def clean_settings(self) -> dict[str, Any]:
        return parsed(self.cleaned_data["settings"])


class CaseForm(forms.Form):
    """A case for the advisor; only the task is needed."""

    task = forms.ChoiceField(
        choices=[(name, f"{name}: {sentence}") for name, sentence in TASKS.items()],
        label="What should the model do?",
    )
    version = forms.ModelChoiceField(
        ModelVersion.objects.none(), required=False, label="With which base?"
    )
    domain_distance = forms.ChoiceField(
        required=False,
        choices=[UNKNOWN, *((name, name.replace("_", " ")) for name in DOMAIN_WORDS)],
        label="How far are your texts from general ones?",
        help_text="Measured by python -m training.engine advise --text; manuals and laws in plain "
        "English are near.",
    )
    knowledge_changes = forms.ChoiceField(
        required=False,
        choices=[UNKNOWN, *((name, name) for name in CHANGES)],
        label="How often does the knowledge change?",
    )
    consistent_format = forms.ChoiceField(
        required=False,
        choices=[UNKNOWN, *((name, name) for name in FORMATS)],
        label="Must answers share one form?",
    )
    labelled_examples = forms.IntegerField(
        required=False, min_value=0, max_value=10**12, label="Examples with the answer you want"
    )
    preference_pairs = forms.IntegerField(
        required=False, min_value=0, max_value=10**12, label="Pairs of a better and a worse answer"
    )
    raw_tokens = forms.IntegerField(
        required=False, min_value=0, max_value=10**15, label="Tokens of your own texts"
    )
    private = forms.NullBooleanField(label="May the data not leave the house?")
    device = forms.ChoiceField(choices=[("gpu", "a GPU"), ("cpu", "a processor")])
    device_gb = forms.FloatField(
        required=False, min_value=0.01, max_value=1e6, label="Its memory in GB"
    )
    device_tflops = forms.FloatField(
        required=False, min_value=1e-6, max_value=1e6, label="What it really computes, in TFLOP/s"
    )
    budget_hours = forms.FloatField(
        required=False, min_value=0.001, max_value=1e6, label="Hours that training may take"
    )

    def __init__(self, *args: object, workspace: Workspace, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        offer(self, version=versions_of(workspace).filter(kind=ModelVersion.Kind.BASE))

    def case(self) -> dict[str, Any]:
        """What `case_from_dict` reads, without the base."""
        said = {name: value for name, value in self.cleaned_data.items() if name != "version"}
        return {name: value for name, value in said.items() if value not in (None, "")}


#: Of a preset's config what a launch form asks elsewhere, or sets itself.
ELSEWHERE = ("method", "tuning", "threads", "schema", "seed", "base")


def settings_of(config: dict[str, Any]) -> str:
    """A preset's config as the settings field takes it."""
    left = {name: value for name, value in config.items() if name not in ELSEWHERE}
    adapter = {k: v for k, v in left.get("adapter", {}).items() if k != "init_from"}
    if "adapter" in left:
        left["adapter"] = adapter
    return json.dumps({name: value for name, value in left.items() if value != {}})


def tuning_of(config: dict[str, Any]) -> str:
    if config.get("tuning") == "full":
        return "full"
    return "qlora" if config.get("base", {}).get("quantization") == "nf4" else "lora"
