"""The PandaLM test set: an instruction, two responses, and the answers of three people."""

from __future__ import annotations

from typing import Any

from annotate.formats.canonical import shown, text_problem
from annotate.formats.records import PairRecord, SourceJudgment, Unusable, check_different

#: 0: similar, 1: the first is better, 2: the second is.
ANSWERS = {0: "tie", 1: "first", 2: "second"}
PEOPLE = ("annotator1", "annotator2", "annotator3")


def recognises(row: dict[str, Any]) -> bool:
    return {"instruction", "response1", "response2", "annotator1"} <= set(row)


def read(row: dict[str, Any], line: int) -> PairRecord:
    """One row as a pair with three judgments. Raises Unusable."""
    for name in ("instruction", "input", "response1", "response2"):
        given = row.get(name)
        problem = text_problem("" if name == "input" and given is None else given, name)
        if problem:
            raise Unusable(problem)
    if not row["instruction"].strip():
        raise Unusable("instruction is empty")
    judgments = []
    for person in PEOPLE:
        value = row.get(person)
        # True equals 1 in Python, and is no answer of a person.
        if type(value) not in (int, float) or value not in ANSWERS:
            raise Unusable(f"{person} is {shown(value)}; 0, 1 or 2 was expected")
        judgments.append(SourceJudgment(f"pandalm:{person}", ANSWERS[value]))
    check_different(row["response1"], row["response2"])
    number = row.get("idx")
    return PairRecord(
        line=line,
        messages=[{"role": "user", "content": instruction_text(row)}],
        first=row["response1"],
        second=row["response2"],
        judgments=judgments,
        reference=f"pandalm:{number if isinstance(number, int) else line}",
    )


def instruction_text(row: dict[str, Any]) -> str:
    """Instruction and input as one question; used for prompts of the same origin too."""
    extra = str(row.get("input") or "").strip()
    instruction = str(row["instruction"]).strip()
    return f"{instruction}\n\n{extra}" if extra else instruction
