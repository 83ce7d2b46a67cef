"""Will we finish? Honest where nobody can know, and right where the pace is known."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from annotate.models import Project
from annotate.selectors.forecast import project_forecast
from annotate.templatetags.pictures import forecast_picture
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People


def judged(project: Project, people: People, *, n: int, hours: float) -> None:
    """n judgments by Bob, spread evenly over the last hours, on comparisons now complete."""
    bob = make_annotator(people.workspace, people.bob)
    for number in range(n):
        pair = make_comparison(project, prompt=f"done {number}?")
        type(pair).objects.filter(pk=pair.pk).update(slots=0)
        at = timezone.now() - timedelta(hours=hours * (n - number) / n)
        make_judgment(pair, bob, created_at=at)


def test_an_empty_project_has_no_forecast(people: People) -> None:
    found = project_forecast(project=make_project(people.workspace))
    assert (found.points, found.done_by) == ([], None)
    assert found.reason == "there is nothing to judge yet"


def test_too_few_judgments_say_how_many_are_needed(people: People) -> None:
    project = make_project(people.workspace)
    make_comparison(project)
    judged(project, people, n=12, hours=20)
    found = project_forecast(project=project)
    assert found.done_by is None
    assert found.reason == "needs 20 judgments made here within a week, has 12"


def test_imports_say_nothing_about_the_pace_of_people(people: People) -> None:
    project = make_project(people.workspace)
    for number in range(25):
        pair = make_comparison(project, prompt=f"{number}?")
        make_judgment(pair, make_annotator(people.workspace, name="source"))
    found = project_forecast(project=project)
    assert (found.judged, found.wanted) == (25, 25)
    assert "has 0" in found.reason


def test_the_rest_takes_as_long_as_the_pace_says(people: People) -> None:
    project = make_project(people.workspace, overlap=5)
    judged(project, people, n=25, hours=24)  # 25 a day
    for number in range(10):
        make_comparison(project, prompt=f"open {number}?")  # 50 judgments: two days
    found = project_forecast(project=project)
    assert found.done_by is not None
    assert found.low is not None
    assert found.high is not None
    assert found.per_day == pytest.approx(25, rel=0.01)
    days = (found.done_by - timezone.now()).total_seconds() / 86400
    assert days == pytest.approx(2.0, rel=0.01)
    # 25 ± 1.96 · 5 = 15.2 to 34.8 a day: between 50 / 34.8 = 1.44 and 50 / 15.2 = 3.29 days
    low = (found.low - timezone.now()).total_seconds() / 86400
    high = (found.high - timezone.now()).total_seconds() / 86400
    assert (low, high) == (pytest.approx(1.44, abs=0.02), pytest.approx(3.29, abs=0.03))


def test_nothing_wanted_is_done(people: People) -> None:
    project = make_project(people.workspace)
    judged(project, people, n=3, hours=3)
    found = project_forecast(project=project)
    assert (found.wanted, found.done_by, found.reason) == (0, None, "")
    assert found.points[-1][1] == 3


def test_the_picture_does_not_pretend_to_reach_the_goal_before_its_time() -> None:
    start = datetime(2026, 11, 1, tzinfo=UTC)
    now = start + timedelta(days=1)
    far = now + timedelta(days=30)
    drawn = str(forecast_picture([(start, 0), (now, 10)], 100, far, far, far))
    ahead = re.search(r'class="ahead" d="M[\d.]+ ([\d.]+) L[\d.]+ ([\d.]+)"', drawn)
    goal = re.search(r'<line class="grid" x1="[\d.]+" y1="([\d.]+)"', drawn)
    assert ahead
    assert goal
    # The picture ends after 3 of the 30 days: a tenth of the way from 10 to 100 is 19.
    base, top = 184.0, float(goal[1])
    assert float(ahead[2]) == pytest.approx(base - 0.19 * (base - top), abs=0.2)
