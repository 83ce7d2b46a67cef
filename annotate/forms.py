"""What people fill in about projects, their data and their snapshots."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.conf import settings

from annotate.errors import AnnotateError
from annotate.formats.reading import FORMATS
from annotate.models import JudgeVersion, Project, PromptSet
from annotate.selectors.judges import accepted_judges
from annotate.services.labels import Label, labels_from_text

MAX_UPLOAD_MB = settings.MAX_UPLOAD_BYTES // 2**20
TEXTS = ".jsonl,.gz,.json,.parquet,.csv,.tsv"
PAIRS, PROMPTS = ".jsonl,.gz,.json,.parquet", ".jsonl,.gz,.json,.parquet,.txt"


class LabelsField(forms.CharField):
    """Labels written one a line, as the services take them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            required=False,
            label="Labels",
            widget=forms.Textarea(attrs={"rows": 6, "spellcheck": "false"}),
            help_text="For a project of labels, one a line: “name”, “name: definition” or "
            "“name [key]: definition”. Without a key it gets 1, 2, 3, … in this order.",
            **kwargs,
        )

    def clean(self, value: Any) -> list[Label]:
        try:
            return labels_from_text(str(super().clean(value)))
        except AnnotateError as error:
            raise forms.ValidationError(str(error)) from error


class NewProjectForm(forms.Form):
    kind = forms.ChoiceField(
        choices=Project.Kind.choices,
        initial=Project.Kind.COMPARISONS,
        required=False,
        label="What is asked",
        help_text="It cannot change later.",
    )
    name = forms.CharField(max_length=120, help_text="What annotators see.")
    slug = forms.SlugField(
        max_length=50,
        label="Short name",
        help_text="For addresses and commands: letters, digits, - and _. It cannot change later.",
    )
    overlap = forms.IntegerField(
        min_value=1,
        max_value=100,
        initial=1,
        label="Judgments per comparison",
        help_text="Two or more on some comparisons are what agreement is measured on.",
    )
    guidelines = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 6}),
        help_text="Markdown. Annotators can open it at any time.",
    )
    labels = LabelsField()

    def clean_kind(self) -> str:
        return str(self.cleaned_data["kind"] or Project.Kind.COMPARISONS)


class SettingsForm(forms.Form):
    """A project's settings; empty guidelines are guidelines too, so they are always sent."""

    name = forms.CharField(max_length=120)
    state = forms.ChoiceField(choices=Project.State.choices, label="Judging is")
    overlap = forms.IntegerField(
        min_value=1,
        max_value=100,
        label="Judgments per comparison",
        help_text="Less than a comparison has already: it keeps them and wants no more.",
    )
    lease_s = forms.IntegerField(
        min_value=10,
        label="Seconds an annotator keeps a comparison",
        help_text="After that it is offered to somebody else.",
    )
    allow_tie = forms.BooleanField(required=False, label="“Tie” may be answered")
    allow_both_bad = forms.BooleanField(required=False, label="“Both bad” may be answered")
    guidelines = forms.CharField(
        required=False,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 10}),
        help_text="Markdown. A changed text is a new version; judgments name theirs.",
    )
    labels = LabelsField()

    def __init__(self, *args: Any, kind: str = Project.Kind.COMPARISONS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Each kind shows what it has.
        labels = kind == Project.Kind.LABELS
        compared = kind == Project.Kind.COMPARISONS
        for name in [] if compared else ["allow_tie", "allow_both_bad"]:
            del self.fields[name]
        if not labels:
            del self.fields["labels"]
        for field in self.fields.values() if labels else ():
            field.label = str(field.label or "").replace("comparison", "text") or None
            field.help_text = str(field.help_text).replace("comparison", "text")

    def clean_guidelines(self) -> str:
        # Browsers send \r\n; an unchanged text must not look changed.
        return str(self.cleaned_data["guidelines"]).replace("\r\n", "\n")


class ImportForm(forms.Form):
    file = forms.FileField(
        label="File",
        help_text=f"JSON lines (.jsonl, .jsonl.gz) or Parquet, up to {MAX_UPLOAD_MB} MB.",
        widget=forms.ClearableFileInput(attrs={"accept": PAIRS}),
    )
    format = forms.ChoiceField(
        choices=[("auto", "recognise it"), *((name, name.upper()) for name in FORMATS)]
    )
    skip_bad = forms.BooleanField(required=False, label="Leave out rows that cannot be used")


class ImportTextsForm(forms.Form):
    file = forms.FileField(
        label="File",
        help_text="JSON lines, Parquet, or CSV and TSV with a header; columns text (or prompt, "
        f"with or without response) and perhaps label; up to {MAX_UPLOAD_MB} MB.",
        widget=forms.ClearableFileInput(attrs={"accept": TEXTS}),
    )
    skip_bad = forms.BooleanField(required=False, label="Leave out rows that cannot be used")


class ImportRankingsForm(forms.Form):
    file = forms.FileField(
        label="File",
        help_text="JSON lines or Parquet; columns prompt (or instruction) and responses: a list of "
        "4 to 9 texts (or UltraFeedback's completions). An order comes along as ranks: a number "
        f"for each response, 1 is best, and annotator, whose it is; up to {MAX_UPLOAD_MB} MB.",
        widget=forms.ClearableFileInput(attrs={"accept": PAIRS}),
    )
    skip_bad = forms.BooleanField(required=False, label="Leave out rows that cannot be used")


class ImportPromptsForm(forms.Form):
    file = forms.FileField(
        label="File",
        help_text=f"JSON lines with a prompt each, or text, one a line; up to {MAX_UPLOAD_MB} MB.",
        widget=forms.ClearableFileInput(attrs={"accept": PROMPTS}),
    )
    name = forms.SlugField(
        max_length=50, label="Name of the set", help_text="An existing name makes a new version."
    )
    use = forms.ChoiceField(
        choices=PromptSet.Use.choices, initial=PromptSet.Use.FRESH, label="What it is for"
    )
    skip_bad = forms.BooleanField(required=False, label="Leave out rows that cannot be used")


class FreezeForm(forms.Form):
    test_percent = forms.IntegerField(
        min_value=1,
        max_value=90,
        initial=20,
        label="Held out (%)",
        help_text="Prompts kept from training, to measure on.",
    )
    leave_out_known = forms.BooleanField(
        required=False, label="Leave out judgments of people who knew the model"
    )
    #: Any of the workspace: the freezing says why one that is not accepted does not count.
    judge = forms.ModelChoiceField(JudgeVersion.objects.none(), required=False)

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.accepted = accepted_judges(project=project)
        judge = cast(forms.ModelChoiceField, self.fields["judge"])
        judge.queryset = JudgeVersion.objects.filter(workspace=project.workspace_id)
