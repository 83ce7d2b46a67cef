"""What `manage.py doctor` says: one finding a line, whatever is broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from django.db import DatabaseError

Level = Literal["ok", "warning", "bad"]
#: Seconds that a server may take to answer a check.
PATIENCE_S = 5


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's: what was looked at, how it is, and how to mend it."""

    check: str
    level: Level
    said: str
    mend: str = ""


@dataclass(frozen=True)
class Check:
    name: str
    look: Callable[[], list[Finding]]
    #: Skipped, with a word, where the database does not answer.
    needs_database: bool = False


def examine(checks: Sequence[Check]) -> list[Finding]:
    """The findings of every check, in order."""
    found: list[Finding] = []
    for check in checks:
        away = any(f.check == "database" and f.level == "bad" for f in found)
        if check.needs_database and away:
            found.append(Finding(check.name, "warning", "not looked at: it needs the database"))
            continue
        try:
            found += check.look()
        except DatabaseError as error:
            said = f"not known: the database refused the question ({first_line(error)})"
            found.append(Finding(check.name, "warning", said, "mend what is said of it above"))
        except Exception as error:  # whatever is broken, the other checks still have their say
            said = f"the check itself broke ({type(error).__name__}: {first_line(error)})"
            found.append(Finding(check.name, "bad", said, "report this: it is a fault of ours"))
    return found


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def shortly(names: Sequence[str], most: int = 3) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
