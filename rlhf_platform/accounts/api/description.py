"""How an operation appears in the OpenAPI document, its problems (RFC 9457) included."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers

MEDIA_TYPE = "application/problem+json"
MEANINGS = {
    400: "The body cannot be read: no JSON, or a broken upload.",
    401: "No token, a wrong one, or a revoked one.",
    403: "The role does not allow this.",
    404: "The workspace has no such row.",
    409: "The state of things does not allow this (now, or any more).",
    413: "The body is too large.",
    415: "The body has another media type than this operation reads.",
    422: "Readable, but not acceptable: `errors` names the fields, `bad_rows` the lines.",
}


class FieldProblem(serializers.Serializer[Any]):
    field = serializers.CharField(help_text="Dotted path; empty where the body as a whole is meant")
    message = serializers.CharField()


class BadRow(serializers.Serializer[Any]):
    line = serializers.IntegerField(help_text="Line of the file, from 1")
    reason = serializers.CharField()


class Problem(serializers.Serializer[Any]):
    """What every answer of 400 and above holds (RFC 9457)."""

    type = serializers.CharField(help_text="A stable name of the kind of problem")
    title = serializers.CharField(help_text="The same for every problem of the type")
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="What happened this time, and what to do")
    errors = FieldProblem(many=True, required=False)  # type: ignore[assignment]
    bad_rows = BadRow(many=True, required=False, help_text="At most the first 1000")


def describe(
    operation: str,
    meaning: str,
    *,
    gives: Any = None,
    status: int = 200,
    also: dict[int, Any] | None = None,
    body: Any = None,
    upload: Any = None,
    query: Any = None,
    media: str = "",
    problems: Iterable[int] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`gives` is the answer of `status`, `also` of other statuses; 401 and 403 are always told."""
    answers: dict[Any, Any] = {}
    for code, kind in {status: gives, **(also or {})}.items():
        if media:
            answers[code, media] = OpenApiTypes.STR
        elif kind is None:
            answers[code] = OpenApiResponse(description="Nothing more to say")
        else:
            # Named with its media type like the problems are: drf-spectacular takes the smallest
            # key for the main answer, and finds out from it whether this is a list with pages.
            answers[code, "application/json"] = kind
    told = {401, 403, *problems}
    if body is not None or upload is not None:
        told |= {400, 413, 415, 422}
    if query is not None:
        told.add(422)
    for code in sorted(told):
        answers[code, MEDIA_TYPE] = OpenApiResponse(Problem, description=MEANINGS[code])
    return extend_schema(
        operation_id=operation,
        summary=operation.replace("_", " ").capitalize(),
        description=f"{meaning}.".replace("?.", "?"),
        request={"multipart/form-data": upload} if upload is not None else body,
        parameters=[query] if query is not None and query().fields else None,
        responses=answers,
    )
