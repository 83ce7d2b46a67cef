"""Management commands as the terminal runs them."""

from __future__ import annotations

from io import StringIO

from django.core.management import call_command


def run(command: str, *arguments: object) -> str:
    """What a command prints."""
    out = StringIO()
    call_command(command, *map(str, arguments), stdout=out)
    return out.getvalue()
