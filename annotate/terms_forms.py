"""On what terms people judge in a project, as a form; and what people say of themselves."""

from __future__ import annotations

from typing import Any

from django import forms

from annotate.models import Project
from annotate.services.participation import MAX_REPEAT, named_people
from rlhf_platform.accounts.models import User


class TopicsField(forms.CharField):
    """Names with commas between."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        return [
            each.strip() for each in (super().to_python(value) or "").split(",") if each.strip()
        ]


class TermsForm(forms.Form):
    """What `update_terms` takes."""

    restricted = forms.BooleanField(
        required=False,
        label="Only the people named below judge",
        help_text="Else every member may.",
    )
    named = forms.ModelMultipleChoiceField(
        queryset=User.objects.none(),
        required=False,
        label="Named people",
        widget=forms.CheckboxSelectMultiple,
    )
    quota = forms.IntegerField(
        required=False,
        min_value=1,
        label="Most judgments of one person",
        help_text="Empty: no limit.",
    )
    daily_limit = forms.IntegerField(
        required=False, min_value=1, label="Most judgments of one person a day (UTC)"
    )
    daily_goal = forms.IntegerField(
        required=False, min_value=1, label="Goal of a day", help_text="Shown, never enforced."
    )
    break_minutes = forms.IntegerField(
        required=False, min_value=5, max_value=600, label="Minutes after which a break is proposed"
    )
    revise_window_h = forms.IntegerField(
        min_value=0, max_value=24 * 365, label="Hours in which people may revise", initial=24
    )
    repeat_every = forms.IntegerField(
        required=False,
        min_value=2,
        max_value=MAX_REPEAT,
        label="Repeat every so many comparisons",
        help_text="One in so many is one the same person judged before, with the sides swapped. "
        "Empty: never.",
    )
    repeat_after = forms.IntegerField(
        min_value=1, max_value=MAX_REPEAT, label="Others between the two", initial=20
    )
    unblinded = forms.BooleanField(
        required=False, label="People see how often others agree with them"
    )
    blur = forms.BooleanField(required=False, label="Texts are blurred until they are uncovered")
    topics = TopicsField(
        required=False,
        max_length=1000,
        label="Topics people may opt out of",
        help_text="With commas between, such as: violence, health.",
    )
    content_warning = forms.CharField(
        required=False,
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 3}),
        label="Content warning",
        help_text="Shown before anything else. Another text is asked for anew.",
    )
    consent_text = forms.CharField(
        required=False,
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 6}),
        label="Consent",
        help_text="What people accept before anything is shown. Another text is asked for anew.",
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if project.kind == Project.Kind.RANKINGS:
            del self.fields["repeat_every"], self.fields["repeat_after"]  # no two sides to swap
        members = User.objects.filter(memberships__workspace=project.workspace_id)
        members = members.order_by("name", "email")
        self.fields["named"].queryset = members  # type: ignore[attr-defined]

    def clean_content_warning(self) -> str:
        return str(self.cleaned_data["content_warning"]).replace("\r\n", "\n")

    def clean_consent_text(self) -> str:
        return str(self.cleaned_data["consent_text"]).replace("\r\n", "\n")


def terms_of(project: Project) -> dict[str, Any]:
    """A project's terms as the form's initial values."""
    own = {name: getattr(project, name) for name in TermsForm.base_fields if name != "named"}
    return {**own, "named": list(named_people(project=project))}


class ReviseForm(forms.Form):
    answer = forms.CharField(max_length=80)
    rationale = forms.CharField(required=False, max_length=10_000)
    key = forms.CharField(max_length=120)
