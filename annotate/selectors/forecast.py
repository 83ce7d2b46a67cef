"""Will we finish? Judgments over time, what is still wanted, and when at this pace it is done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Min, Sum
from django.db.models.functions import TruncDay, TruncHour
from django.utils import timezone

from annotate.models import Annotator, Judgment, Project
from annotate.statistics.intervals import Z

#: Fewer judgments made here than this, or in less time, say nothing about next week.
ENOUGH = 20
SHORTEST = timedelta(minutes=10)
#: The pace is that of these last days, so that a slow start does not weigh for ever.
WINDOW = timedelta(days=7)
#: Forecasts beyond this are told as such: nobody plans for the year after next.
FARTHEST = timedelta(days=365)
#: Longer histories are counted by day, shorter ones by hour.
BY_THE_HOUR = timedelta(days=3)


@dataclass(frozen=True)
class Forecast:
    """`done_by` is None where nothing is left, or with a reason where nobody can know."""

    points: list[tuple[datetime, int]]
    judged: int
    wanted: int
    per_day: float | None
    done_by: datetime | None
    low: datetime | None
    high: datetime | None
    reason: str

    @property
    def total(self) -> int:
        return self.judged + self.wanted


def project_forecast(*, project: Project) -> Forecast:
    """A forecast from the members' judgments of the last days.

    The interval treats judgments as independent events (n ± 1.96 √n); people take breaks
    together, so it is on the narrow side.
    """
    now = timezone.now()
    standing = Judgment.objects.current().filter(
        comparison__project=project, comparison__group=None
    )
    points = over_time(project, now)
    judged = points[-1][1] if points else 0
    wanted = project.comparisons.aggregate(n=Sum("slots"))["n"] or 0
    recent = standing.filter(
        annotator__kind=Annotator.Kind.MEMBER, created_at__gte=now - WINDOW
    ).aggregate(n=Count("pk"), first=Min("created_at"))
    known = Forecast(points, judged, wanted, None, None, None, None, "")
    if not judged and not wanted:
        return replaced(known, reason="there is nothing to judge yet")
    if not wanted:
        return known
    n, first = recent["n"], recent["first"]
    if n < ENOUGH:
        return replaced(known, reason=f"needs {ENOUGH} judgments made here within a week, has {n}")
    elapsed = now - first
    if elapsed < SHORTEST:
        return replaced(known, reason="people have only just begun; ten minutes tell more")
    days = elapsed.total_seconds() / 86400
    spread = Z * math.sqrt(n)
    low = after(now, wanted * days / (n + spread))
    high = after(now, wanted * days / (n - spread))
    done = after(now, wanted * days / n)
    if done is None:
        return replaced(known, per_day=n / days, reason="at this pace more than a year")
    return Forecast(points, judged, wanted, n / days, done, low, high or now + FARTHEST, "")


def after(now: datetime, days: float) -> datetime | None:
    """That many days from now; None where it is too far to mean anything."""
    return now + timedelta(days=days) if 0 <= days <= FARTHEST.days else None


def replaced(known: Forecast, *, per_day: float | None = None, reason: str) -> Forecast:
    return Forecast(known.points, known.judged, known.wanted, per_day, None, None, None, reason)


def over_time(project: Project, now: datetime) -> list[tuple[datetime, int]]:
    """(moment, judgments standing by then), by hour or by day, from before the first until now."""
    standing = Judgment.objects.current().filter(
        comparison__project=project, comparison__group=None
    )
    first = standing.aggregate(first=Min("created_at"))["first"]
    if first is None:
        return []
    hourly = now - first < BY_THE_HOUR
    trunc, width = (TruncHour, timedelta(hours=1)) if hourly else (TruncDay, timedelta(days=1))
    rows = (
        standing.annotate(bucket=trunc("created_at"))
        .values("bucket")
        .annotate(n=Count("pk"))
        .order_by("bucket")
        .values_list("bucket", "n")
    )
    points: list[tuple[datetime, int]] = [(first, 0)]
    total = 0
    for bucket, n in rows:
        total += n
        points.append((min(now, max(first, bucket + width)), total))
    points.append((now, total))
    return points
