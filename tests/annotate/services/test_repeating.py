"""Swapped repeats: what they measure, that nobody can tell them, that they count for nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.test import Client

from annotate.errors import AnnotateError, LeaseLost
from annotate.models import Annotator, Assignment, Judgment, Project
from annotate.selectors.comparisons import comparison_story
from annotate.selectors.consistency import consistency_of
from annotate.selectors.progress import queue_progress
from annotate.selectors.quality import position_share, project_agreement
from annotate.services.aggregation import aggregate_project, judgment_state
from annotate.services.judging import submit_judgment, undo_judgment
from annotate.services.participation import update_terms
from annotate.services.prefetching import lease_ahead, show_assignment
from annotate.services.projects import update_project
from annotate.services.revising import revise_judgment
from annotate.services.serving import (
    annotator_for,
    expire_leases,
    next_assignment,
    skip_assignment,
)
from tests.annotate.services.leases import overlap_holds, run_out
from tests.api.world import caller
from tests.factories import make_comparison, make_project
from tests.people import People

pytestmark = pytest.mark.django_db
#: One in two is a repeat, so in so many servings there are some (all new: once in 2**50).
COMPARISONS = 60
Choice = Callable[[Assignment], str]


@pytest.fixture
def project(people: People) -> Project:
    made = make_project(people.workspace, repeat_every=2, repeat_after=3)
    for number in range(COMPARISONS):
        make_comparison(made, prompt=f"Question {number}?")
    return made


@pytest.fixture
def bob(people: People) -> Annotator:
    return annotator_for(user=people.bob, workspace=people.workspace)


def better_a(assignment: Assignment) -> str:
    return "right" if assignment.swapped else "left"


def say(assignment: Assignment, choose: Choice = better_a, key: str = "") -> Judgment:
    return submit_judgment(
        assignment=assignment,
        annotator=assignment.annotator,
        answer=choose(assignment),
        idempotency_key=key or f"{assignment.pk}",
    )


def judge_all(project: Project, annotator: Annotator, choose: Choice = better_a) -> list[Judgment]:
    said = []
    while assignment := next_assignment(project=project, annotator=annotator):
        said.append(say(assignment, choose))
    return said


def until_repeat(project: Project, annotator: Annotator) -> Assignment:
    while assignment := next_assignment(project=project, annotator=annotator):
        if assignment.is_repeat:
            return assignment
        say(assignment)
    raise AssertionError("no repeat came")


def test_a_repeat_shows_the_same_with_sides_swapped_after_others(
    project: Project, bob: Annotator
) -> None:
    said = judge_all(project, bob)
    repeats = [judgment for judgment in said if judgment.is_repeat]
    assert repeats
    for repeat in repeats:
        first = Judgment.objects.get(comparison=repeat.comparison, is_repeat=False)
        assert repeat.swapped is not first.swapped
        assert repeat.supersedes is None
        between = [each for each in said if first.pk < each.pk < repeat.pk]
        assert len(between) >= 3
    again = [repeat.comparison_id for repeat in repeats]
    assert len(set(again)) == len(again)
    # Nobody is kept once the queue is done, however often they ask.
    assert all(next_assignment(project=project, annotator=bob) is None for _ in range(20))


def test_repeats_take_no_place_and_count_for_nothing_else(project: Project, bob: Annotator) -> None:
    held = until_repeat(project, bob)
    assert overlap_holds(held.comparison)
    before = judgment_state(project=project)
    assert queue_progress(project=project).live_leases == 0
    say(held, lambda shown: "left" if shown.swapped else "right")
    assert judgment_state(project=project) == before
    judge_all(project, bob)
    assert all(overlap_holds(comparison) for comparison in project.comparisons.all())
    assert queue_progress(project=project).judgments == COMPARISONS
    assert position_share(project=project).n == COMPARISONS
    assert project_agreement(project=project).n_judgments == 0
    preferences = aggregate_project(project=project).preferences
    assert {preference.n_a for preference in preferences.all()} == {1}
    story = comparison_story(held.comparison)
    assert (len(story.judgments), story.n) == (2, 1)
    # Places are counted without them, too.
    update_project(project=project, overlap=2)
    assert {comparison.slots for comparison in project.comparisons.all()} == {1}


@pytest.mark.parametrize(
    ("choose", "same", "left", "right"),
    [
        (better_a, 1.0, 0, 0),
        (lambda _: "tie", 1.0, 0, 0),
        (lambda _: "left", 0.0, 1.0, 0),
        (lambda _: "right", 0.0, 0, 1.0),
    ],
)
def test_consistency_and_side_preference_are_measured(
    people: People, project: Project, bob: Annotator, choose: Choice, same: float, left: float,
    right: float,
) -> None:  # fmt: skip
    assert consistency_of(project=project) == []
    judge_all(project, bob, choose)
    everybody, own = consistency_of(project=project)
    assert everybody.annotator is None
    assert own.annotator == bob
    assert own.n == Judgment.objects.filter(is_repeat=True).count() > 0
    assert (own.same, own.left, own.right) == (same * own.n, left * own.n, right * own.n)
    assert own.share == same
    assert own.low <= same <= own.high
    reported = caller(people.rita, people.workspace).get("/projects/helpful/agreement").json()
    assert [row["annotator"] for row in reported["consistency"]] == [None, str(people.bob)]
    assert reported["consistency"][1]["left"] == left * own.n


def test_a_repeat_can_be_skipped_let_run_out_taken_back_and_revised(
    project: Project, bob: Annotator
) -> None:
    held = until_repeat(project, bob)
    run_out(held)
    assert expire_leases(project=project) == 1
    assert overlap_holds(held.comparison)
    said = say(held, key="late")  # an answer that comes late is still welcome
    assert said.is_repeat
    undone = undo_judgment(project=project, annotator=bob, idempotency_key="u")
    assert undone == held
    assert Judgment.objects.current().filter(comparison=held.comparison).count() == 1
    again = say(undone, key="again")
    later = revise_judgment(judgment=again, annotator=bob, answer="tie", idempotency_key="r")
    assert later.is_repeat
    assert consistency_of(project=project)[1].same == 0
    assert [j.is_repeat for j in held.comparison.judgments.order_by("pk")] == [False] + [True] * 4
    skipped = until_repeat(project, bob)
    skip_assignment(assignment=skipped, annotator=bob)
    assert overlap_holds(skipped.comparison)
    with pytest.raises(LeaseLost):
        say(skipped, key="gone")


def test_repeats_are_leased_ahead_like_any_other(people: People, bob: Annotator) -> None:
    project = make_project(people.workspace, slug="ahead", repeat_every=2, repeat_after=1)
    for number in range(120):
        make_comparison(project, prompt=f"Question {number}?")
    ahead: list[Assignment] = []
    while not any(each.is_repeat for each in ahead):
        held = next_assignment(project=project, annotator=bob)
        assert held is not None
        say(held)
        ahead = lease_ahead(project=project, annotator=bob)
    repeat = next(each for each in ahead if each.is_repeat)
    run_out(repeat)
    shown = show_assignment(assignment=repeat, annotator=bob)
    assert overlap_holds(shown.comparison)
    assert say(shown).is_repeat


def test_nobody_can_tell_a_repeat(
    people: People, client: Client, project: Project, bob: Annotator
) -> None:
    client.force_login(people.bob)
    held = until_repeat(project, bob)
    page = client.get("/judge/helpful/").content.decode()
    assert "Response" in page or "answer" in page
    assert "repeat" not in page.lower()
    served = caller(people.bob, people.workspace).post("/projects/helpful/next").json()
    assert served["id"] == held.pk
    assert not any("repeat" in name for name in served)
    say(held)
    # In their history it is a judgment like any other.
    rows = client.get("/my-work/").content.decode()
    assert rows.count(">Revise<") == min(25, Judgment.objects.count())
    assert "say the same twice</h2>" not in rows
    update_terms(project=project, unblinded=True)
    assert (
        "1 comparison that you saw again got the same answer"
        in client.get("/my-work/").content.decode()
    )


def test_admins_read_it_on_the_projects_page(
    people: People, client: Client, project: Project, bob: Annotator
) -> None:
    client.force_login(people.rita)
    assert "nobody has judged a repeat" in client.get("/projects/helpful/").content.decode()
    say(until_repeat(project, bob))
    page = client.get("/projects/helpful/").content.decode()
    assert "Do people say the same twice?" in page
    assert "About one in 2 comparisons" in page
    update_terms(project=project, repeat_every=None)
    assert "Nothing is repeated any more" in client.get("/projects/helpful/").content.decode()


def test_terms_are_read_and_set_over_the_api(people: People, project: Project) -> None:
    alice = caller(people.alice, people.workspace)
    asked = {"repeat_every": 10, "repeat_after": 30, "named": [people.bob.email.upper()]}
    told = alice.send("PATCH", "/projects/helpful/terms", asked).json()
    assert (told["repeat_every"], told["repeat_after"]) == (10, 30)
    assert told["named"] == [people.bob.email]
    assert alice.get("/projects/helpful/terms").json() == told
    for wrong in ({"repeat_every": 1}, {"named": ["charlie@example.org"]}, {"repeats": 3}):
        assert alice.send("PATCH", "/projects/helpful/terms", wrong).status_code == 422


def test_a_ranking_is_never_repeated(people: People) -> None:
    ranked = make_project(people.workspace, slug="ranked", kind="rankings")
    with pytest.raises(AnnotateError, match="no two sides"):
        update_terms(project=ranked, repeat_every=20)
