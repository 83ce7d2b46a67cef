"""The API as a whole: its addresses and its one error shape (RFC 9457)."""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.core.exceptions import (
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.db import OperationalError
from django.http import Http404
from django.urls import include, path, re_path
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView
from rest_framework import exceptions
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView, set_rollback

from annotate import errors as annotate
from annotate.api.urls import api_urlpatterns as annotate_urlpatterns
from rlhf_platform.accounts.api.description import MEDIA_TYPE
from rlhf_platform.accounts.api.endpoint import AlwaysJSON
from rlhf_platform.accounts.api.urls import api_urlpatterns as accounts_urlpatterns
from training import errors as training
from training.api.urls import api_urlpatterns as training_urlpatterns

log = logging.getLogger(__name__)

#: Refused rows that one answer lists.
MAX_BAD_ROWS = 1000

#: (status, short name, title) of our own errors and Django's; subclasses follow their nearest base.
PROBLEMS: dict[type[Exception], tuple[int, str, str]] = {
    annotate.NotFound: (404, "not-found", "Not found"),
    annotate.ImportRefused: (422, "import-refused", "The file was not imported"),
    annotate.NothingToFreeze: (422, "nothing-to-freeze", "The snapshot would be empty"),
    annotate.LeaseLost: (409, "lease-lost", "The assignment is no longer yours"),
    annotate.KeyReused: (409, "key-reused", "The idempotency key was used for something else"),
    annotate.NothingToUndo: (409, "nothing-to-undo", "Nothing can be taken back"),
    annotate.ProjectClosed: (409, "project-closed", "The project takes no judgments"),
    annotate.NotNamed: (409, "not-named", "The project is not for you"),
    annotate.ConsentMissing: (409, "consent-missing", "Consent comes first"),
    annotate.LimitReached: (409, "limit-reached", "You have judged as much as you may"),
    annotate.SlugTaken: (409, "slug-taken", "The short name is taken"),
    annotate.WrongKind: (409, "wrong-kind", "The project holds something else"),
    annotate.NotCalibrated: (409, "not-calibrated", "No admin has accepted this judge"),
    annotate.OverlapInUse: (409, "overlap-in-use", "The overlap cannot be lowered so far"),
    annotate.HubRefused: (422, "hub-refused", "The Hub does not take it"),
    annotate.HubUnreachable: (502, "hub-unreachable", "The Hub did not answer"),
    annotate.PushStopped: (409, "push-stopped", "The push was stopped"),
    annotate.AnnotateError: (422, "refused", "The request cannot be honoured"),
    training.LaunchKeyReused: (
        409,
        "key-reused",
        "The idempotency key was used for another launch",
    ),
    training.CannotLaunch: (422, "cannot-launch", "The launch is impossible as asked"),
    training.UnknownBase: (422, "unknown-base", "There is no such base model"),
    training.UnknownVersion: (404, "not-found", "Not found"),
    training.FailedGate: (409, "failed-gate", "A gate was failed and no reason given"),
    training.IllegalTransition: (409, "illegal-transition", "Not possible in this state"),
    training.LostLease: (409, "lost-lease", "Another worker has the job"),
    training.TrainingError: (422, "refused", "The request cannot be honoured"),
    Http404: (404, "not-found", "Not found"),
    PermissionDenied: (403, "forbidden", "Forbidden"),
    RequestDataTooBig: (413, "too-large", "The body is too large"),
    SuspiciousOperation: (400, "bad-request", "The request cannot be read"),
    OperationalError: (503, "database-busy", "The database did not answer"),
}
#: (short name, title) of DRF's errors by their status.
BY_STATUS = {
    400: ("bad-request", "The request cannot be read"),
    401: ("unauthenticated", "Who is asking?"),
    403: ("forbidden", "Forbidden"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "Method not allowed"),
    406: ("not-acceptable", "Not available in this form"),
    413: ("too-large", "The body is too large"),
    415: ("unsupported-media-type", "Unsupported media type"),
    422: ("invalid", "The request is not acceptable"),
    429: ("throttled", "Too many requests"),
}


def problem_response(error: Exception, context: dict[str, Any]) -> Response | None:
    """Every error as problem+json. What nobody expected is logged, and told without its trace."""
    set_rollback()
    if isinstance(error, exceptions.ValidationError):
        fields = flat(error.detail)
        named = "; ".join(f"{e['field']}: {e['message']}".lstrip(": ") for e in fields[:3])
        return problem(422, *BY_STATUS[422], named, errors=fields)
    if isinstance(error, exceptions.APIException):
        name, title = BY_STATUS.get(error.status_code, ("error", error.default_detail))
        detail = sentence(error.detail)
        if isinstance(error, exceptions.NotAuthenticated):
            detail = "Send a token, as in Authorization: Bearer aa_…, or sign in."
        response = problem(error.status_code, name, str(title), detail)
        for header, value in (
            ("WWW-Authenticate", getattr(error, "auth_header", None)),
            ("Retry-After", getattr(error, "wait", None)),
        ):
            if value:
                response[header] = value
        return response
    kind = next((base for base in type(error).__mro__ if base in PROBLEMS), None)
    if kind is not None:
        if kind is OperationalError:
            log.warning("the database did not answer an API request: %s", error)
            detail = "The database is busy or away; send the request again in a moment."
        else:
            detail = str(error) or PROBLEMS[kind][2]
        response = problem(*PROBLEMS[kind], detail)
        if bad_rows := getattr(error, "bad_rows", []):
            response.data["bad_rows"] = [
                {"line": row.line, "reason": row.reason} for row in bad_rows[:MAX_BAD_ROWS]
            ]
        return response
    if settings.DEBUG:
        return None
    log.error("an API request failed: %s", context["request"].path, exc_info=error)
    detail = "This is our fault, and it was logged. Sending the same again may not help."
    return problem(500, "internal", "Something went wrong here", detail)


def problem(status: int, name: str, title: str, detail: str, **more: Any) -> Response:
    body = {
        "type": f"urn:annotate-and-align:{name}",
        "title": title,
        "status": status,
        "detail": detail,
        **more,
    }
    return Response(body, status=status, content_type=MEDIA_TYPE)


def sentence(detail: Any) -> str:
    """DRF's detail is a text, or a list or dict of texts."""
    if isinstance(detail, list | dict):
        return "; ".join(error["message"] for error in flat(detail))
    return str(detail)


def flat(detail: Any, field: str = "") -> list[dict[str, str]]:
    """Nested validation errors as one list; `field` is the dotted path."""
    if isinstance(detail, dict):
        return [
            error
            for name, inner in detail.items()
            for error in flat(
                inner, field if name == "non_field_errors" else f"{field}.{name}".lstrip(".")
            )
        ]
    if isinstance(detail, list | tuple):
        return [error for inner in detail for error in flat(inner, field)]
    return [{"field": field, "message": str(detail)}]


class SchemaView(SpectacularJSONAPIView):
    """The OpenAPI document; it tells nothing about anybody, so everybody may read it."""


class DocsView(SpectacularSwaggerSplitView):
    """Swagger UI in two answers, page and script, so that the content policy stays strict."""

    url_name = "api_schema"
    template_name = "api/docs.html"


class NoSuchAddress(APIView):
    """Whatever else begins with /api/: a JSON answer where Django's would be a page."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    content_negotiation_class = AlwaysJSON

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        raise exceptions.NotFound(
            f"There is nothing at {request.path}; the addresses are listed at /api/v1/docs "
            "(none ends with a slash)."
        )

    @extend_schema(exclude=True)
    def get(self, request: Request) -> Response:
        raise exceptions.NotFound


operations = [*accounts_urlpatterns, *annotate_urlpatterns, *training_urlpatterns]
urlpatterns = [
    path("v1/schema", SchemaView.as_view(), name="api_schema"),
    path("v1/docs", DocsView.as_view(), name="api_docs"),
    path("v1/", include(operations)),
    re_path(r"", NoSuchAddress.as_view()),
]
