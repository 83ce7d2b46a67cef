"""Queries that are built and compiled once; each use only fills their values in.

Django builds a queryset and its SQL anew for every use, which for the statements of a judgment
costs a web process several times what sending them and reading the rows does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from django.db import DEFAULT_DB_ALIAS, connections, models
from django.db.models.query import ModelIterable
from django.db.models.sql import UpdateQuery

Row = TypeVar("Row", bound=models.Model)

#: Numbers that stand for values while SQL is compiled: the first value is the first of them, and
#: so on. They fit the smallest column; what differs between the two compilations is a value.
FIRST_MARKS = (31_000, 32_000)
#: Numbers beyond the eight bytes of a column are in no row, and PostgreSQL refuses to compare them.
LARGEST = 2**63 - 1


class Statement:
    """SQL as a function of the values in it, compiled at its first use, once for each shape.

    `build(*shape, **values)` gives the queryset. It is called with marks for the values: they must
    reach the SQL as they are given, numbers or texts, and decide nothing while it is built. What
    decides something (a setting, a kind) is part of the shape; there are to be few shapes.
    """

    def __init__(self, build: Callable[..., models.QuerySet[Any]]) -> None:
        self._build = build
        self._compiled: dict[Any, tuple[Any, str, tuple[Any, ...], dict[int, tuple[str, Any]]]] = {}

    def filled(self, shape: tuple[Any, ...], values: dict[str, int | str]) -> Any:
        """(compiler, SQL, parameters) with these values."""
        key = (connections[DEFAULT_DB_ALIAS].vendor, shape, *values)
        if key not in self._compiled:
            self._compiled[key] = self._compile(shape, values)
        compiler, sql, given, places = self._compiled[key]
        parameters = list(given)
        for place, (name, kind) in places.items():
            parameters[place] = kind(values[name])
        return compiler, sql, tuple(parameters)

    def _compile(self, shape: tuple[Any, ...], values: dict[str, int | str]) -> Any:
        """Compiled twice, with other marks: what differs between the two are the values."""
        (compiler, sql, given), (_, _, other) = (
            self._marked(shape, values, first) for first in FIRST_MARKS
        )
        names = {
            mark(value, number, FIRST_MARKS[0]): name
            for number, (name, value) in enumerate(values.items())
        }
        places = {
            place: (names[one], type(one))
            for place, (one, two) in enumerate(zip(given, other, strict=True))
            if one != two
        }
        missing = set(values) - {name for name, _ in places.values()}
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))}: not in the query as given: {sql}")
        return compiler, sql, given, places

    def _marked(self, shape: tuple[Any, ...], values: dict[str, int | str], first: int) -> Any:
        marks = {name: mark(value, n, first) for n, (name, value) in enumerate(values.items())}
        compiler = self.query(self._build(*shape, **marks)).get_compiler(DEFAULT_DB_ALIAS)
        return compiler, *compiler.as_sql()

    def query(self, queryset: models.QuerySet[Any]) -> Any:
        """What is compiled."""
        return queryset.query


class Prepared(Statement, Generic[Row]):
    """A queryset of whole rows, related ones included."""

    if TYPE_CHECKING:

        def __init__(self, build: Callable[..., models.QuerySet[Row]]) -> None: ...

    def rows(self, *shape: Any, **values: int | str) -> list[Row]:
        """Every row. Within a transaction where the queryset locks."""
        if any(isinstance(value, int) and abs(value) > LARGEST for value in values.values()):
            return []
        compiled, sql, parameters = self.filled(shape, values)
        compiler = copy.copy(compiled)
        compiler.connection = connections[DEFAULT_DB_ALIAS]
        compiler.as_sql = lambda: (sql, parameters)
        query = SimpleNamespace(get_compiler=lambda using: compiler)
        source = SimpleNamespace(db=DEFAULT_DB_ALIAS, query=query, _known_related_objects={})
        return list(ModelIterable(cast(Any, source)))

    def first(self, *shape: Any, **values: int | str) -> Row | None:
        """The first row of a queryset that has one at most, or is cut to one."""
        return next(iter(self.rows(*shape, **values)), None)


class PreparedUpdate(Statement):
    """An update of the rows of a queryset; what it sets is always the same."""

    def __init__(self, build: Callable[..., models.QuerySet[Any]], **changes: Any) -> None:
        super().__init__(build)
        self._changes = changes

    def query(self, queryset: models.QuerySet[Any]) -> Any:
        query = cast(UpdateQuery, queryset.query.chain(UpdateQuery))
        query.add_update_values(self._changes)
        return query

    def run(self, **values: int | str) -> int:
        """How many rows matched."""
        _, sql, parameters = self.filled((), values)
        with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            cursor.execute(sql, parameters)
            return int(cursor.rowcount)


def mark(value: int | str, number: int, first: int) -> int | str:
    """What stands for the value of that number, of its kind."""
    return first + number if isinstance(value, int) else f"mark {first + number}"
