"""What a project asks beside the answer, as a researcher fills it in: one thing a line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django import forms

from annotate.errors import AnnotateError
from annotate.models import Project
from annotate.services.labels import LINE, Label, labels_as_text
from annotate.services.questions import MAX_RATIONALE, OF_ANY_KIND

WHETHER = [("off", "No"), ("optional", "May be given"), ("required", "Must be given")]
RANGE = re.compile(r"(?P<low>-?\d{1,3})\s*(-|–|to)\s*(?P<high>-?\d{1,3})")
LINES = "One a line."


def lines(label: str, help_text: str) -> forms.CharField:
    return forms.CharField(
        required=False,
        label=label,
        help_text=help_text,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
    )


class QuestionsForm(forms.Form):
    """Every key of a form as a field; `as_form` gives what `checked_form` takes."""

    strength = forms.ChoiceField(
        required=False,
        label="How much better?",
        choices=[("", "Not asked"), ("4", "4 steps: slightly, much"), ("8", "8 steps")],
        help_text="Steps over both sides, without a middle; a chosen step is the answer too.",
    )
    aspects = lines("Aspects to compare", f"{LINES} “name” or “name: definition”.")
    ratings = lines(
        "Ratings of each answer", f"{LINES} “name [1-5]” or “name [1-5]: what the ends mean”."
    )
    reasons = lines("Reasons to choose from", f"{LINES} Any number may be chosen.")
    rationale = forms.ChoiceField(required=False, label="A reason in own words", choices=WHETHER)
    rationale_min = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=MAX_RATIONALE,
        label="Characters a reason needs",
        help_text="Counted where one is given.",
    )
    rewrite = forms.ChoiceField(
        required=False,
        label="A rewrite of the better answer",
        choices=WHETHER,
        help_text="Snapshots export it to fine-tune on.",
    )
    spans = lines("Kinds of marks in a text", f"{LINES} Such as error, unsupported, unsafe.")
    known_model = forms.BooleanField(
        required=False,
        label="Ask for “I know which model wrote this”",
        help_text="Such judgments are marked, and a snapshot may leave them out.",
    )
    conditions = lines(
        "Questions that wait for an answer",
        f"{LINES} “question: answers”, such as “rewrite: left, right”. Questions: "
        "strength, aspects, ratings, reasons, rationale, rewrite, spans, known_model; "
        "left is A on the screen.",
    )

    #: Apart from the settings that share the page's form.
    prefix = "ask"

    def __init__(self, *args: Any, kind: str = Project.Kind.COMPARISONS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if kind != Project.Kind.COMPARISONS:
            kept = {*OF_ANY_KIND, "rationale_min", "conditions"}
            if kind == Project.Kind.RANKINGS:
                kept.remove("conditions")
            for name in [name for name in self.fields if name not in kept]:
                del self.fields[name]

    def clean(self) -> dict[str, Any]:
        """Texts as the lists they mean; a line that means none is an error of its field."""
        found = super().clean() or {}
        for name, read in (("aspects", aspect), ("ratings", rating), ("conditions", waiting)):
            try:
                found[name] = [
                    read(line, f"line {number}")
                    for number, line in enumerate(str(found.get(name, "")).splitlines(), start=1)
                    if line.strip()
                ]
            except AnnotateError as error:
                self.add_error(name, str(error))
        for name in ("reasons", "spans"):
            text = str(found.get(name, ""))
            found[name] = [line.strip() for line in text.splitlines() if line.strip()]
        return found

    def as_form(self) -> dict[str, Any]:
        """What was filled in, for `checked_form`."""
        found = {name: value for name, value in self.cleaned_data.items() if value}
        if "strength" in found:
            found["strength"] = int(found["strength"])
        return found


def aspect(line: str, where: str) -> dict[str, Any]:
    parts = LINE.fullmatch(line.strip())
    if parts is None or parts["key"] is not None:
        raise AnnotateError(f"{where}: write “name” or “name: definition”")
    return {"name": parts["name"], "definition": (parts["definition"] or "").strip()}


def rating(line: str, where: str) -> dict[str, Any]:
    parts = LINE.fullmatch(line.strip())
    points = RANGE.fullmatch((parts["key"] or "").strip()) if parts else None
    if parts is None or points is None:
        raise AnnotateError(f"{where}: write “name [1-5]” or “name [1-5]: definition”")
    return {
        "name": parts["name"],
        "definition": (parts["definition"] or "").strip(),
        "low": int(points["low"]),
        "high": int(points["high"]),
    }


def waiting(line: str, where: str) -> dict[str, Any]:
    show, colon, answers = line.partition(":")
    named = [answer.strip() for answer in answers.split(",") if answer.strip()]
    if not colon or not named:
        raise AnnotateError(f"{where}: write “question: answers”, such as “rewrite: left, right”")
    return {"show": show.strip(), "when": {"answer": named}}


def as_fields(form: Mapping[str, Any]) -> dict[str, Any]:
    """A stored form as the fields' first values: the inverse of `QuestionsForm.as_form`."""
    return {
        "strength": str(form.get("strength", "")),
        "aspects": named_lines(form.get("aspects", [])),
        "ratings": named_lines(
            [row | {"key": f"{row['low']}-{row['high']}"} for row in form.get("ratings", [])]
        ),
        "reasons": "\n".join(form.get("reasons", [])),
        "rationale": form.get("rationale", "optional"),
        "rationale_min": form.get("rationale_min"),
        "rewrite": form.get("rewrite", "off"),
        "spans": "\n".join(form.get("spans", [])),
        "known_model": form.get("known_model", False),
        "conditions": "\n".join(
            f"{row['show']}: {', '.join(row['when']['answer'])}"
            for row in form.get("conditions", [])
        ),
    }


def named_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return labels_as_text(
        [
            Label(name=row["name"], definition=row["definition"], key=row.get("key", ""))
            for row in rows
        ]
    )
