"""What people said of an old model's answers beside a new one's, as the engine reads it."""

from __future__ import annotations

import json

import pytest

from annotate.models import Answer, Comparison, Response
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People
from tests.training.rows import make_round, make_run, make_version
from training.engine.win_rate import by_judge
from training.models import ModelVersion, Round, Run, Sample
from training.services.folders import data_lines


@pytest.fixture
def round(people: People) -> Round:
    made = make_round(make_project(people.workspace))
    made.policy_version = make_version(people.workspace, "policy", kind="policy")
    made.save()
    return made


def wrote(run: Run, version: ModelVersion, response: Response) -> None:
    Sample.objects.create(
        workspace=run.workspace, run=run, version=version, prompt=response.prompt,
        response=response, index=run.samples.count(), seed=0, finished=True, tokens=1,
    )  # fmt: skip


def pair(round: Round, number: int, *, new_is_a: bool) -> Comparison:
    """A comparison of an old and a new answer to a prompt of its own."""
    found = make_comparison(round.project, f"Fresh {number}?", a=f"one {number}", b=f"two {number}")
    found.origin = Comparison.Origin.OLD_NEW
    found.save()
    run = make_run(round, stage="sample_policy")
    old, new = round.reference, round.policy_version
    assert new is not None
    for response, version in zip(found.pair, (new, old) if new_is_a else (old, new), strict=True):
        wrote(run, version, response)
    return found


def test_judgments_of_old_and_new_answers_go_into_the_evaluation(round: Round) -> None:
    ann, bob = (make_annotator(round.workspace, name=name) for name in ("ann", "bob"))
    first, second = pair(round, 0, new_is_a=True), pair(round, 1, new_is_a=False)
    make_judgment(first, ann, Answer.A)
    make_judgment(first, bob, Answer.TIE)
    make_judgment(second, ann, Answer.A)
    make_judgment(second, bob, Answer.BOTH_BAD)
    lines = data_lines(make_run(round, stage="evaluate"))["judged"]
    rows = [json.loads(line) for line in lines]
    assert [row["choice"] for row in rows] == ["second", "tie", "first"]
    assert [row["annotator"] for row in rows] == [ann.pseudonym, bob.pseudonym, ann.pseudonym]
    found = by_judge(rows)
    assert (found["rate"]["value"], found["rate"]["n"]) == (0.5, 3)  # (1 + 1/2 + 0) / 3
    assert not any(name in line for line in lines for name in ('"ann"', '"bob"'))


def test_pairs_of_other_models_and_other_origins_are_left_out(round: Round) -> None:
    ann = make_annotator(round.workspace, name="ann")
    between_others = make_comparison(round.project, "Fresh 8?")
    between_others.origin = Comparison.Origin.OLD_NEW
    between_others.save()
    make_judgment(between_others, ann)
    on_policy = pair(round, 1, new_is_a=True)
    on_policy.origin = Comparison.Origin.ON_POLICY
    on_policy.save()
    make_judgment(on_policy, ann)
    files = data_lines(make_run(round, stage="evaluate"))
    assert set(files) == {"test"}


def test_what_a_person_took_back_does_not_count(round: Round) -> None:
    ann = make_annotator(round.workspace, name="ann")
    judged = make_judgment(pair(round, 0, new_is_a=True), ann, Answer.A)
    make_judgment(judged.comparison, ann, Answer.WITHDRAWN, supersedes=judged)
    assert "judged" not in data_lines(make_run(round, stage="evaluate"))
