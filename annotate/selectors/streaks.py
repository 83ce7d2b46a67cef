"""On how many days in a row somebody has judged."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from annotate.models import Annotator, Judgment

#: Further back nobody looks.
LOOK_BACK = timedelta(days=60)


def days_in_a_row(*, annotator: Annotator) -> int:
    """Days (UTC) in a row with a judgment, up to today or yesterday: a day that has only begun
    breaks nothing."""
    today = timezone.now().date()
    mine = Judgment.objects.filter(annotator=annotator, created_at__gte=timezone.now() - LOOK_BACK)
    days = set(mine.order_by().values_list("created_at__date", flat=True).distinct())
    last = today if today in days else today - timedelta(days=1)
    count = 0
    while last - timedelta(days=count) in days:
        count += 1
    return count
