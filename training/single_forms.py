"""What people fill in to launch one method outside a round, and to ask which way to go."""

from __future__ import annotations

from typing import Any

from django import forms

from annotate.models import Snapshot
from rlhf_platform.accounts.models import Workspace
from training.engine.advisor_case import CHANGES, DOMAIN_WORDS, FORMATS, TASKS
from training.engine.domain import decoded
from training.engine.errors import DataError
from training.engine.packaged import NAMES
from training.forms import offer, parsed, versions_of
from training.models import ModelVersion, TextSet
from training.services.measuring import measuring_source
from training.services.methods import LAUNCHABLE, TUNINGS
from training.services.versions import hub_id_of

UNKNOWN = ("", "not known")


class TextSetField(forms.ModelChoiceField):
    def label_from_instance(self, obj: TextSet) -> str:
        return (
            f"{obj}: {obj.get_kind_display().lower()}, {obj.n_train} and {obj.n_held_out} held out"
        )


def base_field(label: str, help_text: str) -> forms.CharField:
    """A base by its name, which needs no version yet."""
    return forms.CharField(
        required=False,
        max_length=200,
        label=label,
        help_text=help_text,
        widget=forms.TextInput(attrs={"spellcheck": "false", "autocomplete": "off"}),
    )


class SingleRunForm(forms.Form):
    """One method, what it starts from, what it reads."""

    method = forms.ChoiceField(choices=[(name, each.title) for name, each in LAUNCHABLE.items()])
    version = forms.ModelChoiceField(
        ModelVersion.objects.none(), required=False, label="Starts from"
    )
    base = base_field(
        "Or from a new base",
        f"{NAMES}, or a Hub id such as google-bert/bert-base-uncased. Counts before the version.",
    )
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
        offer(
            self,
            version=versions_of(workspace),
            snapshot=Snapshot.objects.filter(project__workspace=workspace).order_by("-pk"),
            text_set=TextSet.objects.filter(workspace=workspace).order_by("-pk"),
            documents=TextSet.objects.filter(workspace=workspace, kind="documents").order_by("-pk"),
        )
        bases = versions_of(workspace).filter(kind=ModelVersion.Kind.BASE)
        self.fields["version"].initial = bases.last()

    def clean_settings(self) -> dict[str, Any]:
        return parsed(self.cleaned_data["settings"])

    def clean(self) -> dict[str, Any]:
        found = super().clean() or {}
        if "version" in found and not (found["version"] or found.get("base")):
            raise forms.ValidationError("Choose what it starts from: a version, or a new base.")
        return found


#: The fields of a case as the page groups them.
GROUPS = {
    "The task": ("task", "consistent_format", "knowledge_changes"),
    "What there is to learn from": (
        "labelled_examples", "preference_pairs", "raw_tokens", "example_tokens",
    ),
    "Your texts": ("domain_distance", "text_set", "text_file", "text"),
    "The base": ("version", "base", "base_config", "private", "model_in_house"),
    "The hardware": ("device", "device_gb", "device_tflops", "budget_hours"),
}  # fmt: skip


#: Where a text to measure may come from; one of them.
TEXTS = ("text_set", "text_file", "text")
LARGEST_TEXT = 20_000_000


class CaseForm(forms.Form):
    """A case for the advisor; only the task is needed."""

    task = forms.ChoiceField(
        choices=[(name, f"{name}: {sentence}") for name, sentence in TASKS.items()],
        label="What should the model do?",
    )
    version = forms.ModelChoiceField(
        ModelVersion.objects.none(), required=False, label="With which base?"
    )
    base = base_field(
        "Or another base by its name",
        f"{NAMES} (an encoder), or a Hub id. Counts before the one chosen.",
    )
    base_config = forms.CharField(
        required=False,
        max_length=50_000,
        label="Its config.json",
        help_text="Pasted from the model's page, for a base that is not on this server: its memory "
        "is planned, and nothing is downloaded.",
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "autocomplete": "off"}),
    )
    domain_distance = forms.ChoiceField(
        required=False,
        choices=[UNKNOWN, *((name, name.replace("_", " ")) for name in DOMAIN_WORDS)],
        label="How far are your texts from general ones?",
        help_text="Manuals and laws in plain English are near. Or have some measured under the "
        "base: a worker does it, in about a minute.",
    )
    text_set = forms.ModelChoiceField(
        TextSet.objects.none(), required=False, label="Measure a text set"
    )
    text_file = forms.FileField(
        required=False, label="Or a file", help_text="Plain text in UTF-8; 512 tokens at least."
    )
    text = forms.CharField(
        required=False,
        max_length=2_000_000,
        label="Or pasted text",
        help_text="Kept until it is measured.",
        widget=forms.Textarea(attrs={"rows": 4, "autocomplete": "off"}),
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
    example_tokens = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=10**6,
        label="Tokens of an example",
        help_text="Question and answer together, on average; 256 where nothing is said.",
    )
    private = forms.NullBooleanField(label="Must the data stay in the house?")
    model_in_house = forms.NullBooleanField(
        label="Can the model run in the house?",
        help_text="Whether its weights can be had (an open model): yes where nothing is said.",
    )
    device = forms.ChoiceField(
        choices=[("gpu", "a GPU"), ("cpu", "a processor")], label="The device"
    )
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
        offer(
            self,
            version=versions_of(workspace).filter(kind=ModelVersion.Kind.BASE),
            text_set=TextSet.objects.filter(workspace=workspace).order_by("-pk"),
        )

    @property
    def groups(self) -> list[tuple[str, list[forms.BoundField]]]:
        return [(legend, [self[name] for name in names]) for legend, names in GROUPS.items()]

    def clean_base_config(self) -> dict[str, Any]:
        return parsed(self.cleaned_data["base_config"])

    def clean_text_file(self) -> str:
        sent = self.cleaned_data["text_file"]
        if sent is None:
            return ""
        if sent.size > LARGEST_TEXT:
            raise forms.ValidationError(
                f"The file has {sent.size / 1e6:.0f} MB; a part of it is enough, at most "
                f"{LARGEST_TEXT / 1e6:.0f} MB."
            )
        try:
            return decoded(sent.read(), sent.name)
        except DataError as error:
            raise forms.ValidationError(f"{error}.") from error

    def clean(self) -> dict[str, Any]:
        found = super().clean() or {}
        if found.get("base"):
            found["version"] = None
        if sum(bool(found.get(name)) for name in TEXTS) > 1:
            raise forms.ValidationError("One text is measured: a text set, a file, or pasted text.")
        return found

    @property
    def said(self) -> dict[str, str]:
        """What was sent, without the texts: it fills the form in again."""
        return {
            name: self.data[name] for name in self.fields if name in self.data and name not in TEXTS
        }

    @property
    def source(self) -> str:
        """The base to measure under; a pasted config has no weights."""
        if self.cleaned_data["base_config"]:
            return measuring_source(version=None, base="")
        return measuring_source(
            version=self.cleaned_data["version"], base=self.cleaned_data["base"]
        )

    def case(self) -> dict[str, Any]:
        """What `case_from_dict` reads, but for the shape of a version that is chosen."""
        apart = ("version", *TEXTS)
        said = {name: value for name, value in self.cleaned_data.items() if name not in apart}
        version = self.cleaned_data["version"]
        if not said["base"]:
            pasted = hub_id_of(said["base_config"]) or "the pasted base"
            said["base"] = pasted if said["base_config"] else "demo"
        if version is not None:
            said["base"] = version.base["source"]
        return {name: value for name, value in said.items() if value not in (None, "", {})}
