"""Which keys a person judges with, wherever they sign in."""

from __future__ import annotations

from django.conf import settings
from django.db import models


class Hotkeys(models.Model):
    """One person's keys on the judging screen, in every workspace."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    #: Whether single keys mean anything (WCAG 2.1.4); arrows and Enter always do.
    on = models.BooleanField(default=True)
    #: Whether the screen shows the person's pace.
    pace = models.BooleanField(default=True)
    #: `{act: key}` of those that are not as they were at first.
    keys = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"keys of {self.user}"
