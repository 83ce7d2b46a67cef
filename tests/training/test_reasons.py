"""Every reason a job can end for has words for people."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from training.models import Job
from training.selectors.reasons import ADVICE, PUSH_ADVICE, UNKNOWN, advice

SERVICES = Path(__file__).resolve().parents[2] / "training" / "services"
#: A person's own doing, shown as such; no end of anything.
NO_END = {"retry"}


def test_every_reason_in_the_services_is_explained() -> None:
    written = {
        word
        for path in SERVICES.glob("*.py")
        for word in re.findall(r'reason="([a-z_]+)"', path.read_text(encoding="utf-8"))
    }
    assert {"lost", "cancelled", "network"} <= written  # the pattern finds them
    assert written - NO_END <= set(ADVICE)
    assert {
        "oom",
        "preempted",
        "lost",
        "refused",
        "alarm",
        "bug",
        "disk",
        "network",
        "cancelled",
    } == set(ADVICE)


@pytest.mark.parametrize("kind", Job.Kind.values)
@pytest.mark.parametrize("reason", sorted(ADVICE))
def test_a_reason_has_a_meaning_and_a_next_step(reason: str, kind: str) -> None:
    said = advice(reason, kind=kind)
    assert said.meaning.endswith(".")
    assert said.todo.endswith(".")


def test_a_push_is_not_told_to_go_on_from_a_checkpoint() -> None:
    assert "checkpoint" not in " ".join(said.todo for said in PUSH_ADVICE.values())
    assert advice("refused", kind=Job.Kind.PUSH_MODEL).meaning == "The Hub refused the push."
    assert advice("never heard of") == UNKNOWN
