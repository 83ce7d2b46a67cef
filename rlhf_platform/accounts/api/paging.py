"""Lists come in pages: `?limit=&offset=`."""

from __future__ import annotations

from rest_framework.exceptions import ValidationError
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.request import Request

PAGE_NAMES = ("limit", "offset")


class Pages(LimitOffsetPagination):
    """What is no number in range is refused, where DRF would silently take its default."""

    default_limit = 50
    max_limit = 200
    #: An offset is a scan; whoever is this far in wants the export.
    MAX_OFFSET = 10_000_000

    def get_limit(self, request: Request) -> int:
        return whole_number(request, "limit", self.default_limit, 1, self.max_limit)

    def get_offset(self, request: Request) -> int:
        return whole_number(request, "offset", 0, 0, self.MAX_OFFSET)


def whole_number(request: Request, name: str, default: int, low: int, high: int) -> int:
    value = request.query_params.get(name, "")
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 10 and low <= int(value) <= high):
        raise ValidationError({name: [f"A whole number from {low} to {high}."]})
    return int(value)
