"""What is asked beside the answer: which questions a form may hold, and which replies fit them.

A form belongs to one version of the guidelines. What people send names left and right, as they saw
it; what is stored names A and B. docs/decisions/0009-what-is-asked.md
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from annotate.errors import AnnotateError
from annotate.formats.canonical import shown, text_problem
from annotate.models import Answer, Judgment, Project
from annotate.services.labels import Label, check_label

#: What the screen sends of two responses; left and right are where the person saw them.
SCREEN_ANSWERS = ("left", "right", "tie", "both_bad")
SIDES = ("left", "right")
#: Steps over both sides; there is no middle, which is a tie.
STRENGTHS = (4, 8)
WHETHER = ("off", "optional", "required")
QUESTIONS = (
    "strength", "aspects", "ratings", "reasons", "rationale", "rewrite", "spans", "known_model",
)  # fmt: skip
#: A text or a ranking has no two sides, and is asked nothing that needs them.
OF_ANY_KIND = ("reasons", "rationale", "known_model")
#: The keys of `Judgment.details` that people send; a ranking's own is `ranking`.
REPLIES = ("aspects", "ratings", "reasons", "rewrite", "spans", "known_model")
MAX_NAMED = 20
#: Points of a rating, radio buttons in a row.
MAX_POINTS = 11
MAX_RATIONALE = 10_000
#: Characters of a rewritten answer.
MAX_REWRITE = 200_000
MAX_SPANS = 200


class Named(TypedDict):
    name: str
    definition: str


class Scale(Named):
    """A rating from low to high, both included; one name for each end is in the definition."""

    low: int
    high: int


class Form(TypedDict, total=False):
    """The questions of one version; what is absent is not asked (a reason is always welcome)."""

    strength: int
    aspects: list[Named]
    ratings: list[Scale]
    reasons: list[str]
    rationale: str
    rationale_min: int
    rewrite: str
    spans: list[str]
    known_model: bool
    #: `[{"show": question, "when": {"answer": [answers]}}, …]`: shown only after those answers.
    conditions: list[dict[str, Any]]


def checked_form(*, kind: str, form: Mapping[str, Any], answers: Sequence[str]) -> Form:
    """The form as it is stored: checked, and without what says nothing.

    answers: those that a condition may name, as the screen sends them. Raises AnnotateError that
    names the key, what is wrong with it, and what is allowed.
    """
    known = [*QUESTIONS, "rationale_min", "conditions"]
    for key in form:
        if key not in known:
            raise AnnotateError(f"form: there is no key {shown(key)}; known: {', '.join(known)}")
        if kind != Project.Kind.COMPARISONS and key in QUESTIONS and key not in OF_ANY_KIND:
            if not form[key] or form[key] == "off":
                continue
            raise AnnotateError(
                f"form: {key} is asked of two responses only; "
                f"a project of kind “{kind}” can ask {', '.join(OF_ANY_KIND)}"
            )
    found: dict[str, Any] = {
        "strength": one_of(form, "strength", STRENGTHS),
        "aspects": [named(row, where) for row, where in rows_of(form, "aspects")],
        "ratings": [scale(row, where) for row, where in rows_of(form, "ratings")],
        "reasons": names_of(form, "reasons"),
        "rationale": one_of(form, "rationale", WHETHER),
        "rationale_min": count_of(form, "rationale_min", MAX_RATIONALE),
        "rewrite": one_of(form, "rewrite", WHETHER),
        "spans": names_of(form, "spans"),
        "known_model": one_of(form, "known_model", (True, False)),
    }
    for key in ("aspects", "ratings"):
        refuse_twice([row["name"] for row in found[key]], key)
    if found["rationale"] == "optional":
        found["rationale"] = None
    if found["rewrite"] == "off":
        found["rewrite"] = None
    if found["rationale_min"] and found["rationale"] == "off":
        raise AnnotateError("form: rationale_min needs a rationale; set it to optional or required")
    kept: dict[str, Any] = {key: value for key, value in found.items() if value}
    conditions = [
        condition(row, where, kept, answers) for row, where in rows_of(form, "conditions")
    ]
    refuse_twice([row["show"] for row in conditions], "conditions")
    if conditions:
        kept["conditions"] = conditions
    return Form(**kept)  # type: ignore[typeddict-item]  # every key was checked above


def one_of(form: Mapping[str, Any], key: str, allowed: Sequence[Any]) -> Any:
    value = form.get(key)
    if value is None:
        return None
    if not any(value == one and type(value) is type(one) for one in allowed):
        raise AnnotateError(
            f"form: {key} is {shown(value)}; allowed: {', '.join(map(str, allowed))}, or nothing"
        )
    return value


def count_of(form: Mapping[str, Any], key: str, most: int) -> int:
    value = form.get(key) or 0
    if type(value) is not int or not 0 <= value <= most:
        raise AnnotateError(f"form: {key} is {shown(value)}; allowed: 0 to {most} characters")
    return value


def rows_of(form: Mapping[str, Any], key: str) -> list[tuple[dict[str, Any], str]]:
    """[(object, where it is for messages), …] of a list in the form."""
    rows = form.get(key) or []
    if not isinstance(rows, list) or len(rows) > MAX_NAMED:
        raise AnnotateError(f"form: {key} must be a list of at most {MAX_NAMED}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise AnnotateError(f"form: {key} {number} is {shown(row)}, not an object")
    return [(row, f"form: {key} {number}") for number, row in enumerate(rows, start=1)]


def names_of(form: Mapping[str, Any], key: str) -> list[str]:
    """A list of names, such as reasons to choose from."""
    rows = form.get(key) or []
    if not isinstance(rows, list) or len(rows) > MAX_NAMED:
        raise AnnotateError(f"form: {key} must be a list of at most {MAX_NAMED} names")
    for number, name in enumerate(rows, start=1):
        check_label(Label(name=name, definition="", key=""), f"form: {key} {number}")
    refuse_twice(rows, key)
    return list(rows)


def named(row: dict[str, Any], where: str, *more: str) -> Named:
    only_keys(row, where, "name", "definition", *more)
    found = Named(name=row.get("name", ""), definition=row.get("definition", ""))
    check_label(Label(**found, key=""), where)
    return found


def scale(row: dict[str, Any], where: str) -> Scale:
    found = named(row, where, "low", "high")
    low, high = row.get("low"), row.get("high")
    if type(low) is not int or type(high) is not int or not 0 < high - low < MAX_POINTS:
        raise AnnotateError(
            f"{where}: low is {shown(low)}, high is {shown(high)}; use whole numbers, low below "
            f"high, at most {MAX_POINTS} points"
        )
    if abs(low) > 100 or abs(high) > 100:
        raise AnnotateError(f"{where}: low and high must lie between -100 and 100")
    return Scale(**found, low=low, high=high)


def condition(
    row: dict[str, Any], where: str, form: Mapping[str, Any], answers: Sequence[str]
) -> dict[str, Any]:
    """One condition; its question must be asked at all, its answers be answers of the project."""
    only_keys(row, where, "show", "when")
    show, when = row.get("show"), row.get("when")
    if show not in QUESTIONS or not (show in form or show == "rationale"):
        asked = [key for key in QUESTIONS if key in form] or ["nothing"]
        raise AnnotateError(
            f"{where}: show is {shown(show)}, which the form does not ask; it asks "
            f"{', '.join(asked)}"
        )
    named_answers = when.get("answer") if isinstance(when, dict) and len(when) == 1 else None
    if not isinstance(named_answers, list) or not named_answers:
        raise AnnotateError(f'{where}: when must be {{"answer": [one or more answers]}}')
    for one in named_answers:
        if one not in answers:
            raise AnnotateError(
                f"{where}: {shown(one)} is no answer here; use {', '.join(answers) or 'none'}"
            )
    return {"show": show, "when": {"answer": list(dict.fromkeys(named_answers))}}


def only_keys(row: Mapping[str, Any], where: str, *keys: str) -> None:
    strange = next((key for key in row if key not in keys), None)
    if strange is not None:
        raise AnnotateError(f"{where}: unknown key {shown(strange)}; use {', '.join(keys)}")


def refuse_twice(names: Sequence[str], key: str) -> None:
    folded = [name.casefold() for name in names]
    twice = next((name for name in names if folded.count(name.casefold()) > 1), None)
    if twice is not None:
        raise AnnotateError(f"form: {key} names {twice!r} twice")


def is_asked(form: Mapping[str, Any], question: str) -> bool:
    if question == "rationale":
        return form.get("rationale") != "off"
    return bool(form.get(question))


def shown_after(form: Mapping[str, Any], question: str) -> list[str] | None:
    """The answers after which a question is shown; None where it always is."""
    for row in form.get("conditions", ()):
        if row["show"] == question:
            return list(row["when"]["answer"])
    return None


@dataclass(frozen=True)
class Reply:
    """One person's answer to the main question, which the others are read beside."""

    form: Mapping[str, Any]
    #: As the screen sent it.
    answer: str
    swapped: bool
    #: The stored texts of A and B; called for what needs them.
    texts: Callable[[], Mapping[str, str]]

    def stored_side(self, side: object) -> str:
        """left or right as "a" or "b". Raises AnnotateError for anything else."""
        if side not in SIDES:
            raise AnnotateError(f"{shown(side)} is no side; use left or right")
        return "a" if (side == "left") != self.swapped else "b"

    def wants(self, question: str) -> bool:
        after = shown_after(self.form, question)
        return is_asked(self.form, question) and (after is None or self.answer in after)


def checked_reply(
    reply: Reply, *, strength: int | None, details: Mapping[str, Any], rationale: str
) -> tuple[int | None, dict[str, Any]]:
    """(strength, details) as a judgment stores them, by A and B; empty replies are left out.

    Raises AnnotateError that names the question, what is wrong with the reply, and what fits.
    """
    given = {"strength": strength, "rationale": rationale, **details}
    for question, value in given.items():
        if question not in QUESTIONS:
            raise AnnotateError(f"details has no {shown(question)}; it has {', '.join(REPLIES)}")
        if value in (None, "", False) or value == [] or value == {}:
            continue
        if not is_asked(reply.form, question):
            raise AnnotateError(f"{question}: this project does not ask it; leave it out")
        if not reply.wants(question):
            after = ", ".join(shown_after(reply.form, question) or [])
            raise AnnotateError(
                f"{question}: asked only after the answers {after}; leave it out, or change the "
                "answer"
            )
    check_rationale(reply, rationale)
    stored = {name: CHECKS[name](reply, details.get(name)) for name in REPLIES}
    return strength_of(reply, strength), {name: value for name, value in stored.items() if value}


def check_rationale(reply: Reply, rationale: str) -> None:
    if len(rationale) > MAX_RATIONALE:
        raise AnnotateError(f"the reason is longer than {MAX_RATIONALE} characters")
    problem = text_problem(rationale, "the reason")
    if problem:
        raise AnnotateError(problem)
    if not reply.wants("rationale"):
        return
    if not rationale and reply.form.get("rationale") == "required":
        raise AnnotateError("the reason is missing: this project asks for one with every answer")
    least = reply.form.get("rationale_min", 0)
    if rationale and len(rationale) < least:
        raise AnnotateError(f"the reason has {len(rationale)} characters; write {least} or more")


def strength_of(reply: Reply, strength: int | None) -> int | None:
    """Negative for A, positive for B, from 1 to half of the form's steps."""
    if strength is None:
        if reply.wants("strength") and reply.answer in SIDES:
            raise AnnotateError("strength is missing: say how much better that answer is")
        return None
    most = reply.form["strength"] // 2
    if type(strength) is not int or not 1 <= abs(strength) <= most:
        raise AnnotateError(
            f"strength is {shown(strength)}; use -{most} to -1 for left, 1 to {most} for right"
        )
    if reply.answer not in SIDES:
        raise AnnotateError("strength goes with the answers left and right only; leave it out")
    if (strength < 0) != (reply.answer == "left"):
        raise AnnotateError(
            f"strength is {strength}, but the answer is {reply.answer}: "
            "negative is left, positive is right"
        )
    return -abs(strength) if reply.stored_side(reply.answer) == "a" else abs(strength)


def aspects_of(reply: Reply, value: Any) -> dict[str, str]:
    """{aspect: "a", "b" or "tie"}, an answer to each."""
    if not reply.wants("aspects"):
        return {}
    names = [row["name"] for row in reply.form["aspects"]]
    said = every_name(value, names, "aspects")
    for name, side in said.items():
        if side not in (*SIDES, "tie"):
            raise AnnotateError(f"aspect “{name}” is {shown(side)}; use left, right or tie")
    return {
        name: side if side == Answer.TIE else reply.stored_side(side) for name, side in said.items()
    }


def ratings_of(reply: Reply, value: Any) -> dict[str, dict[str, int]]:
    """{"a": {rating: number}, "b": {…}}, a number for each of both responses."""
    if not reply.wants("ratings"):
        return {}
    scales = {row["name"]: row for row in reply.form["ratings"]}
    both = every_name(value, list(SIDES), "ratings")
    found = {}
    for side, rated in both.items():
        said = every_name(rated, list(scales), f"ratings of {side}")
        for name, number in said.items():
            low, high = scales[name]["low"], scales[name]["high"]
            if type(number) is not int or not low <= number <= high:
                raise AnnotateError(
                    f"rating “{name}” of {side} is {shown(number)}; use {low} to {high}"
                )
        found[reply.stored_side(side)] = said
    return found


def every_name(value: Any, names: Sequence[str], what: str) -> dict[str, Any]:
    """An object with exactly these names. Raises AnnotateError for more, fewer or no object."""
    if value is not None and not isinstance(value, Mapping):
        raise AnnotateError(f"{what} is {shown(value)}, not an object")
    said = dict(value or {})
    missing = next((name for name in names if said.get(name) is None), None)
    if missing is not None:
        raise AnnotateError(f"{what}: “{missing}” has no answer; each needs one")
    strange = next((name for name in said if name not in names), None)
    if strange is not None:
        raise AnnotateError(f"{what}: there is no {shown(strange)}; use {', '.join(names)}")
    return {name: said[name] for name in names}


def reasons_of(reply: Reply, value: Any) -> list[str]:
    """The reasons chosen, in the form's order."""
    chosen = list_of(value, "reasons")
    offered = reply.form.get("reasons", [])
    for name in chosen:
        if name not in offered:
            raise AnnotateError(f"reasons: {shown(name)} is none of {', '.join(offered)}")
    return [name for name in offered if name in chosen]


def rewrite_of(reply: Reply, value: Any) -> dict[str, str]:
    """{"of": "a" or "b", "text": …}: of the better answer, or of either where none is better."""
    required = reply.wants("rewrite") and reply.form["rewrite"] == "required"
    if value in (None, "") or value == {}:
        if required and reply.answer in SIDES:
            raise AnnotateError("the rewrite is missing: write the better answer as it should be")
        return {}
    if not isinstance(value, Mapping):
        raise AnnotateError(f'rewrite is {shown(value)}; use {{"of": side, "text": text}}')
    only_keys(value, "rewrite", "of", "text")
    of, text = value.get("of"), value.get("text")
    if of is None and reply.answer in SIDES:
        of = reply.answer
    if of is None:
        raise AnnotateError("rewrite: neither answer is better; say of which it is, left or right")
    side = reply.stored_side(of)
    if reply.answer in SIDES and of != reply.answer:
        raise AnnotateError(f"rewrite: the better answer is {reply.answer}; rewrite that one")
    problem = text_problem(text, "the rewrite")
    if problem:
        raise AnnotateError(problem)
    if not str(text).strip() or len(str(text)) > MAX_REWRITE:
        raise AnnotateError(
            f"the rewrite has {len(str(text))} characters; write 1 to {MAX_REWRITE}"
        )
    if text == reply.texts()[side]:
        raise AnnotateError("the rewrite is the answer as it was; change it, or leave it out")
    return {"of": side, "text": str(text)}


def spans_of(reply: Reply, value: Any) -> list[dict[str, Any]]:
    """Marked spans; start and end count Unicode code points of the stored text, end excluded."""
    spans = list_of(value, "spans")
    if not spans:
        return []
    if len(spans) > MAX_SPANS:
        raise AnnotateError(f"{len(spans)} spans are marked; at most {MAX_SPANS} are taken")
    lengths = {side: len(text) for side, text in reply.texts().items()}
    found = []
    for number, span in enumerate(spans, start=1):
        where = f"span {number}"
        if not isinstance(span, Mapping):
            raise AnnotateError(f"{where} is {shown(span)}, not an object")
        only_keys(span, where, "on", "start", "end", "category")
        side = reply.stored_side(span.get("on"))
        start, end, category = span.get("start"), span.get("end"), span.get("category")
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= lengths[side]:
            raise AnnotateError(
                f"{where} goes from {shown(start)} to {shown(end)}; the text has "
                f"{lengths[side]} characters, and 0 <= start < end"
            )
        if category not in reply.form["spans"]:
            raise AnnotateError(
                f"{where}: {shown(category)} is none of {', '.join(reply.form['spans'])}"
            )
        row = {"on": side, "start": start, "end": end, "category": category}
        if row not in found:
            found.append(row)
    return sorted(found, key=lambda row: (row["on"], row["start"], row["end"], row["category"]))


def known_model_of(reply: Reply, value: Any) -> bool:
    if value not in (None, True, False):
        raise AnnotateError(f"known_model is {shown(value)}; use true or false")
    return bool(value)


def list_of(value: Any, what: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise AnnotateError(f"{what} is {shown(value)}, not a list")
    return value or []


#: How each reply is read; every one takes (reply, what was sent or None).
CHECKS: dict[str, Callable[[Reply, Any], Any]] = {
    "aspects": aspects_of,
    "ratings": ratings_of,
    "reasons": reasons_of,
    "rewrite": rewrite_of,
    "spans": spans_of,
    "known_model": known_model_of,
}


def screen_strength(judgment: Judgment) -> int | None:
    """What its author sent: negative for left."""
    size = abs(judgment.strength or 0)
    if not size:
        return None
    return -size if (judgment.answer == Answer.A) != bool(judgment.swapped) else size


def screen_details(judgment: Judgment) -> dict[str, Any]:
    """What its author sent, by left and right; a ranking by the places that were shown."""
    sides = {"a": "left", "b": "right"}
    if judgment.swapped:
        sides = {"a": "right", "b": "left"}
    found = dict(judgment.details)
    if "aspects" in found:
        found["aspects"] = {name: sides.get(said, said) for name, said in found["aspects"].items()}
    if "ratings" in found:
        found["ratings"] = {sides[side]: said for side, said in found["ratings"].items()}
    if "rewrite" in found:
        found["rewrite"] = found["rewrite"] | {"of": sides[found["rewrite"]["of"]]}
    if "spans" in found:
        found["spans"] = [span | {"on": sides[span["on"]]} for span in found["spans"]]
    if "ranking" in found and judgment.assignment is not None:
        order = judgment.assignment.order
        found["ranking"] = [
            [order.index(position) + 1 for position in tied] for tied in found["ranking"]
        ]
    return found
