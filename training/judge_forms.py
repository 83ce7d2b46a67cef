"""What people fill in to have a machine judge."""

from __future__ import annotations

from typing import Any

from django import forms

from annotate.models import JudgeVersion, Project
from training.engine.config_judge import HOW, RUBRIC
from training.forms import offer, versions_of
from training.models import ModelVersion
from training.services.judging_jobs import known_keys

HOW_WORDS = {
    "verdict": "It writes reasons, then a verdict",
    "letters": "The probabilities of A, B and C are compared (a model here only)",
}


class JudgeForm(forms.Form):
    """A judge: a model and a rubric. Another of either is the next version of the name."""

    name = forms.SlugField(max_length=50, label="Short name")
    version = forms.ModelChoiceField(
        ModelVersion.objects.none(),
        required=False,
        empty_label="none: a server, below",
        label="Model here",
    )
    url = forms.CharField(
        required=False,
        max_length=500,
        label="Or a server's address",
        help_text="OpenAI-compatible, up to and including /v1; https, or http to this machine.",
        widget=forms.URLInput(attrs={"placeholder": "https://…/v1", "autocomplete": "off"}),
    )
    model = forms.CharField(required=False, max_length=200, label="The model's name there")
    how = forms.ChoiceField(choices=[(each, HOW_WORDS[each]) for each in HOW], label="How it says")
    max_new_tokens = forms.IntegerField(
        min_value=1, max_value=100_000, initial=256, label="Longest verdict (tokens)"
    )
    rubric = forms.CharField(
        max_length=20_000,
        initial=RUBRIC,
        widget=forms.Textarea(attrs={"rows": 6}),
        help_text="What makes an answer the better one. It is part of every question.",
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        writing = versions_of(project.workspace).exclude(kind__in=ModelVersion.SILENT)
        offer(self, version=writing)

    def clean_rubric(self) -> str:
        # Browsers send \r\n; an unchanged text must not make another version.
        return str(self.cleaned_data["rubric"]).replace("\r\n", "\n")


#: What bounds a run; None where it was left empty.
BOUNDS = (
    "requests_per_minute", "price_in", "price_out", "max_cost", "max_tokens_total", "timeout_s",
    "retries",
)  # fmt: skip
#: Those that a model on this machine has too.
LOCAL = ("max_tokens_total",)


class JudgingForm(forms.Form):
    """One run of a judge over comparisons that it has not judged."""

    by_people = forms.BooleanField(
        required=False,
        initial=True,
        label="Only what people have judged (a calibration needs these)",
    )
    limit = forms.IntegerField(
        min_value=1, max_value=1_000_000, initial=200, label="Comparisons at most"
    )
    key = forms.ChoiceField(
        required=False,
        label="Key",
        help_text="The variable of the server's environment that holds it. The key itself is "
        "stored nowhere and shown nowhere.",
    )
    requests_per_minute = forms.FloatField(
        required=False, min_value=0, label="Requests a minute", help_text="Empty: no limit."
    )
    max_cost = forms.FloatField(
        required=False,
        min_value=0,
        label="Cost at most",
        help_text="In the prices' currency. A question that might exceed it is not asked.",
    )
    price_in = forms.FloatField(
        required=False, min_value=0, label="Price of a million tokens asked"
    )
    price_out = forms.FloatField(
        required=False, min_value=0, label="Price of a million tokens answered"
    )
    max_tokens_total = forms.IntegerField(required=False, min_value=1, label="Tokens at most")
    timeout_s = forms.FloatField(
        required=False, min_value=0.1, max_value=3600, label="Longest wait for a reply (s)"
    )
    retries = forms.IntegerField(
        required=False, min_value=0, max_value=100, label="Further tries of a request"
    )

    def __init__(self, *args: Any, judge: JudgeVersion, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if judge.settings.get("url") is None:
            for name in ("key", *(each for each in BOUNDS if each not in LOCAL)):
                del self.fields[name]
        else:
            known = sorted(known_keys().items())
            choices = [("", "none"), *((name, f"{name} (for {place})") for name, place in known)]
            self.fields["key"].choices = choices  # type: ignore[attr-defined]

    def asked(self) -> dict[str, Any]:
        """The arguments of `queue_judging`."""
        said = self.cleaned_data
        bounds = {name: said[name] for name in BOUNDS if said.get(name) is not None}
        return {
            "limit": said["limit"],
            "by_people": said["by_people"],
            "key": said.get("key", ""),
            "bounds": bounds,
        }


class AcceptForm(forms.Form):
    reason = forms.CharField(
        max_length=4000,
        label="Why this agreement is enough",
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Kept with the numbers of now and your name.",
    )
