"""Files of prompts with four to nine responses each, to be ranked: JSON lines or Parquet.

A row has `prompt` (or `instruction`): text or messages; and `responses`: a list of texts, or
UltraFeedback's `completions`: a list of objects with a `response`. It may bring the order: `ranks`,
a number for each response (1 is best, equal numbers tie, null has no place), or a `rank` in each
completion; and `annotator`, who gave it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from annotate.errors import BadRow
from annotate.formats.canonical import Messages, asks_nothing, shown
from annotate.formats.reading import Row, read_rows
from annotate.formats.records import Unusable
from annotate.formats.topics import topics_of
from annotate.formats.trl import as_messages, text

#: Fewer are a comparison; more are too many to hold in mind.
LEAST, MOST = 4, 9
#: Who ranked, where a row does not say.
ANNOTATOR = "import:ranks"
MAX_NAME = 200
PROMPT_COLUMNS = ("prompt", "instruction")


@dataclass(frozen=True)
class RankingRecord:
    """Several responses to one prompt as a file gave them."""

    line: int
    messages: Messages
    responses: list[str]
    reference: str = "ranking"
    topics: list[str] = field(default_factory=list)
    #: Of each response, the smallest is the best; empty where no order is given.
    ranks: list[float | None] = field(default_factory=list)
    annotator: str = ""


def read_rankings(path: Path) -> tuple[list[RankingRecord], list[BadRow]]:
    """Every group of a file, or why its row is none. Raises NotFound or ImportRefused."""
    records: list[RankingRecord] = []
    bad: list[BadRow] = []
    for line, row in read_rows(path):
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        try:
            records.append(one_ranking(row, line))
        except Unusable as reason:
            bad.append(BadRow(line, str(reason)))
    return records, bad


def one_ranking(row: Row, line: int) -> RankingRecord:
    """A row as a group. Raises Unusable."""
    asked = [name for name in PROMPT_COLUMNS if row.get(name) is not None]
    if len(asked) != 1:
        what = "both prompt and instruction are" if asked else "neither prompt nor instruction is"
        raise Unusable(f"{what} there; give one of the two")
    messages = as_messages(row[asked[0]], asked[0])
    problem = asks_nothing(messages, asked[0])
    if problem:
        raise Unusable(problem)
    responses = responses_of(row)
    if not LEAST <= len(responses) <= MOST:
        raise Unusable(f"it has {len(responses)} responses; {LEAST} to {MOST} can be ranked")
    for number, response in enumerate(responses, start=1):
        first = responses.index(response) + 1
        if first < number:
            raise Unusable(f"responses {first} and {number} are the same text")
    ranks = ranks_of(row, len(responses))
    return RankingRecord(
        line,
        messages,
        responses,
        topics=topics_of(row),
        ranks=ranks,
        annotator=annotator_of(row) if ranks else "",
    )


def responses_of(row: Row) -> list[str]:
    given: Any = row.get("responses")
    if given is None and isinstance(row.get("completions"), list):
        given = [
            one.get("response") if isinstance(one, dict) else one for one in row["completions"]
        ]
    if not isinstance(given, list):
        raise Unusable(f"responses is {shown(given)}, not a list of texts")
    return [text(one, f"response {number}") for number, one in enumerate(given, start=1)]


def ranks_of(row: Row, count: int) -> list[float | None]:
    """The rank of each response, empty where the row gives none. Raises Unusable."""
    given: Any = row.get("ranks")
    completions = row.get("completions")
    if given is None and row.get("responses") is None and isinstance(completions, list):
        given = [one.get("rank") if isinstance(one, dict) else None for one in completions]
        if all(rank is None for rank in given):
            return []
    if given is None:
        return []
    if not isinstance(given, list) or len(given) != count:
        raise Unusable(f"ranks is {shown(given)}, not a list of {count} numbers, one a response")
    for number, rank in enumerate(given, start=1):
        # True equals 1 in Python; what is not finite compares with nothing.
        if rank is not None and (type(rank) not in (int, float) or not isfinite(rank)):
            raise Unusable(f"the rank of response {number} is {shown(rank)}, not a number")
    if sum(rank is not None for rank in given) < 2:
        raise Unusable("ranks names fewer than two responses, so nothing is said of any pair")
    return given


def annotator_of(row: Row) -> str:
    """Who gave the ranks. Raises Unusable."""
    name = row.get("annotator")
    if name is None:
        return ANNOTATOR
    named = text(name, "annotator").strip()
    if not named or len(named) > MAX_NAME:
        raise Unusable(f"annotator must have 1 to {MAX_NAME} characters")
    return named
