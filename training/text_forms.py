"""What people fill in to bring texts in."""

from __future__ import annotations

from django import forms

from annotate.forms import MAX_UPLOAD_MB, TEXTS
from training.models import TextSet


class ImportTextSetForm(forms.Form):
    kind = forms.ChoiceField(choices=TextSet.Kind.choices, label="What the file holds")
    file = forms.FileField(
        label="File",
        help_text="Documents: text, Markdown, or rows with text (title, id). Labelled texts: text "
        "and label, also as CSV or TSV. Questions: question and answers, fields or label. "
        f"Conversations: messages. Rows are JSON lines or Parquet; up to {MAX_UPLOAD_MB} MB.",
        widget=forms.ClearableFileInput(attrs={"accept": f"{TEXTS},.txt,.md,.rst"}),
    )
    name = forms.SlugField(
        max_length=50, label="Name of the set", help_text="An existing name makes a new version."
    )
    source = forms.CharField(
        required=False,
        max_length=300,
        label="Where it comes from",
        help_text="For those after you.",
    )
    licence = forms.CharField(
        required=False, max_length=100, label="Licence", help_text="For example CC-BY-SA-4.0."
    )
    held_out_percent = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=90,
        label="Held out (%)",
        help_text="Kept from training, to measure on. Empty: 10, labelled texts 20, questions 50.",
    )
    skip_bad = forms.BooleanField(required=False, label="Leave out rows that cannot be used")
