"""What our commands share: expected errors become one clear message, never a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper
from django.db import OperationalError, ProgrammingError

from annotate.errors import AnnotateError, BadRow

DEFAULT_WORKSPACE = "main"


class FriendlyCommand(BaseCommand):
    """Subclasses write `work`; errors in `expected` are shown as they read."""

    expected: tuple[type[Exception], ...] = (AnnotateError,)

    def add_workspace_argument(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--workspace", default=DEFAULT_WORKSPACE, help="short name (default: %(default)s)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self.work(**options)
        except self.expected as error:
            raise CommandError(str(error)) from error
        except (OperationalError, ProgrammingError) as error:
            if "no such table" in str(error) or "does not exist" in str(error):
                raise CommandError("the database has no tables yet: manage.py migrate") from error
            raise CommandError(f"the database does not answer: {error}") from error

    def work(self, **options: Any) -> None:
        raise CommandError(f"{type(self).__module__} has nothing to do")


def list_rows(out: OutputWrapper, title: str, rows: Sequence[BadRow]) -> None:
    """Every row that an import did not take; nothing where it took all."""
    if rows:
        out.write(f"{title}: {len(rows)} rows")
        for row in rows:
            out.write(f"  {row}")
