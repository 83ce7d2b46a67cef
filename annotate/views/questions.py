"""The questions of a form as the page shows them, and what the page posted as the services take it.

Field names: strength, aspect:NAME, rating:left:NAME, reasons, rationale, rewrite, rewrite_of,
spans (JSON), known_model, rank:PLACE.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict

from annotate.errors import AnnotateError
from annotate.models import Judgment
from annotate.services.questions import (
    MAX_RATIONALE,
    MAX_REWRITE,
    SIDES,
    is_asked,
    screen_details,
    screen_strength,
    shown_after,
)
from annotate.services.rankings import Shown, ranking_from_ranks

#: Words for the steps from the middle outwards, by how many a side has.
HOW_MUCH = {2: ("slightly", "much"), 4: ("barely", "slightly", "clearly", "much")}
LETTERS = {"left": "A", "right": "B", "tie": "tie", "both_bad": "both bad"}


@dataclass(frozen=True)
class Choice:
    """One radio button or box: its value, its words, whether it is chosen."""

    value: str
    label: str
    chosen: bool = False
    key: str = ""


@dataclass(frozen=True)
class Row:
    """One line of choices under a question: an aspect, or one response under one rating."""

    name: str
    label: str
    choices: list[Choice]
    definition: str = ""


@dataclass(frozen=True)
class Question:
    """One question as the page shows it; `after` are the answers it waits for, empty for none."""

    kind: str
    after: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    value: str = ""
    required: bool = False
    least: int = 0
    most: int = 0

    @property
    def must(self) -> bool:
        """Whether a page without scripts may insist: a question that waits may stay empty."""
        return self.required and not self.after

    @property
    def after_in_words(self) -> str:
        return " or ".join(LETTERS.get(answer, answer) for answer in self.after)


def questions_of(form: Mapping[str, Any], posted: QueryDict | None = None) -> dict[str, Question]:
    """{question: how to show it} of all that the form asks, with what was posted already."""
    said = posted if posted is not None else QueryDict()
    makers = {
        "strength": strength_question,
        "aspects": aspects_question,
        "ratings": ratings_question,
        "reasons": reasons_question,
        "rationale": rationale_question,
        "rewrite": rewrite_question,
        "spans": spans_question,
        "known_model": known_model_question,
    }
    return {
        name: make(form, said, shown_after(form, name) or [])
        for name, make in makers.items()
        if is_asked(form, name)
    }


def with_places(
    shown: Sequence[Shown], posted: QueryDict | None = None
) -> list[tuple[Shown, list[Choice]]]:
    """Each response of a ranking with the places it may be given."""
    said = posted if posted is not None else QueryDict()
    places = [str(place) for place in range(1, len(shown) + 1)]
    return [
        (
            one,
            [Choice("", "–"), *(Choice(p, p, said.get(f"rank:{one.place}") == p) for p in places)],
        )
        for one in shown
    ]


def strength_question(form: Mapping[str, Any], said: QueryDict, after: list[str]) -> Question:
    words = HOW_MUCH[form["strength"] // 2]
    steps = [*range(-len(words), 0), *range(1, len(words) + 1)]
    return Question(
        "strength",
        after,
        choices=[
            Choice(
                value=str(step),
                label=f"{'A' if step < 0 else 'B'} {words[abs(step) - 1]}",
                chosen=said.get("strength") == str(step),
                key=str(number),
            )
            for number, step in enumerate(steps, start=1)
        ],
    )


def aspects_question(form: Mapping[str, Any], said: QueryDict, after: list[str]) -> Question:
    return Question(
        "aspects",
        after,
        rows=[
            Row(
                name=f"aspect:{row['name']}",
                label=row["name"],
                definition=row["definition"],
                choices=[
                    Choice(side, LETTERS[side], said.get(f"aspect:{row['name']}") == side)
                    for side in ("left", "tie", "right")
                ],
            )
            for row in form["aspects"]
        ],
        required=True,
    )


def ratings_question(form: Mapping[str, Any], said: QueryDict, after: list[str]) -> Question:
    return Question(
        "ratings",
        after,
        rows=[
            Row(
                name=f"rating:{side}:{row['name']}",
                label=f"{row['name']}, {LETTERS[side]}",
                definition=row["definition"],
                choices=[
                    Choice(
                        str(number),
                        str(number),
                        said.get(f"rating:{side}:{row['name']}") == str(number),
                    )
                    for number in range(row["low"], row["high"] + 1)
                ],
            )
            for row in form["ratings"]
            for side in SIDES
        ],
        required=True,
    )


def reasons_question(form: Mapping[str, Any], said: QueryDict, after: list[str]) -> Question:
    chosen = said.getlist("reasons")
    return Question(
        "reasons", after, choices=[Choice(name, name, name in chosen) for name in form["reasons"]]
    )


def rationale_question(form: Mapping[str, Any], said: QueryDict, after: list[str]) -> Question:
    return Question(
        "rationale",
        after,
        value=said.get("rationale", ""),
        required=form.get("rationale") == "required",
        least=form.get("rationale_min", 0),
        most=MAX_RATIONALE,
    )


def rewrite_question(form: Mapping[str, Any], said: QueryDict, after: list[str]) -> Question:
    of = said.get("rewrite_of", "")
    return Question(
        "rewrite",
        after,
        choices=[
            Choice("", "the better answer", not of),
            *(Choice(side, LETTERS[side], of == side) for side in SIDES),
        ],
        value=said.get("rewrite", ""),
        required=form["rewrite"] == "required",
        most=MAX_REWRITE,
    )


def spans_question(form: Mapping[str, Any], said: QueryDict, after: list[str]) -> Question:
    return Question(
        "spans",
        after,
        choices=[
            Choice(name, name, number == 0, key=str(number + 1))
            for number, name in enumerate(form["spans"])
        ],
        value=said.get("spans", ""),
    )


def known_model_question(form: Mapping[str, Any], said: QueryDict, after: list[str]) -> Question:
    return Question(
        "known_model",
        after,
        choices=[
            Choice("true", "I know which model wrote one of these", bool(said.get("known_model")))
        ],
    )


def posted_reply(post: QueryDict) -> dict[str, Any]:
    """strength and details as `submit_judgment` takes them. Raises AnnotateError."""
    details: dict[str, Any] = {}
    for name, value in post.items():
        if not isinstance(value, str) or not value:
            continue
        question, _, rest = name.partition(":")
        if question == "aspect":
            details.setdefault("aspects", {})[rest] = value
        elif question == "rating":
            side, _, rating = rest.partition(":")
            details.setdefault("ratings", {}).setdefault(side, {})[rating] = number(value, name)
    if post.getlist("reasons"):
        details["reasons"] = post.getlist("reasons")
    # Forms send line ends as \r\n, whatever was typed.
    rewrite = post.get("rewrite", "").replace("\r\n", "\n")
    if rewrite.strip():
        details["rewrite"] = {"text": rewrite}
        if post.get("rewrite_of"):
            details["rewrite"]["of"] = post["rewrite_of"]
    if post.get("spans", "").strip():
        details["spans"] = posted_spans(post.get("spans", ""))
    if post.get("known_model"):
        details["known_model"] = True
    if post.get("answer") == "ranking":
        details["ranking"] = ranking_from_ranks(posted_ranks(post))
    strength = post.get("strength", "")
    return {"strength": number(strength, "strength") if strength else None, "details": details}


def as_posted(judgment: Judgment) -> QueryDict:
    """The inverse of `posted_reply`: the fields that would say what a judgment says."""
    post, details = QueryDict(mutable=True), screen_details(judgment)
    post["rationale"] = judgment.rationale
    post["strength"] = f"{screen_strength(judgment) or ''}"
    for name, said in details.get("aspects", {}).items():
        post[f"aspect:{name}"] = said
    for side, ratings in details.get("ratings", {}).items():
        for name, said in ratings.items():
            post[f"rating:{side}:{name}"] = f"{said}"
    post.setlist("reasons", details.get("reasons", []))
    if rewrite := details.get("rewrite"):
        post["rewrite"], post["rewrite_of"] = rewrite["text"], rewrite["of"]
    if spans := details.get("spans"):
        post["spans"] = json.dumps(spans)
    if details.get("known_model"):
        post["known_model"] = "true"
    return post


def posted_ranks(post: QueryDict) -> dict[int, int]:
    """{place: rank} of the responses that were given one."""
    return {
        number(name.removeprefix("rank:"), name): number(value, name)
        for name, value in post.items()
        if name.startswith("rank:") and isinstance(value, str) and value
    }


def posted_spans(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise AnnotateError("spans: the marks could not be read; mark them again") from None


def number(text: str, name: str) -> int:
    """A posted whole number of at most nine digits."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise AnnotateError(f"{name[:80]} is {text[:20]!r}, not a whole number")
    return int(text)
