"""What a prompt is about: a few short names, which people may opt out of."""

from __future__ import annotations

from typing import Any

from annotate.formats.canonical import shown, text_problem
from annotate.formats.records import Unusable

MAX_TOPIC, MAX_TOPICS = 40, 20


def topics_of(row: dict[str, Any]) -> list[str]:
    """The topics a row names under `topic` or `topics`: a list, or a text with commas between.

    Raises Unusable.
    """
    found: list[str] = []
    for column in ("topic", "topics"):
        given = row.get(column)
        if isinstance(given, str):
            given = given.split(",")
        if given is not None:
            found += clean_topics(given, column)
    return clean_topics(found, "topics")


def clean_topics(given: object, name: str, *, most: int = MAX_TOPICS) -> list[str]:
    """A list of names in lower case, each once. Raises Unusable."""
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise Unusable(f"{name} is {shown(given)}, not a list of names")
    names = list(dict.fromkeys(" ".join(each.split()).lower() for each in given if each.strip()))
    if len(names) > most or any(len(each) > MAX_TOPIC for each in names):
        raise Unusable(f"{name}: at most {most} of {MAX_TOPIC} characters each")
    for each in names:
        problem = text_problem(each, name)
        if problem:
            raise Unusable(problem)
    return names
