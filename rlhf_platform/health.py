"""Is the process up (`/healthz`), may it be sent work (`/readyz`), and what is said when not."""

from __future__ import annotations

import sys

from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.views.decorators.http import require_safe


@require_safe
def alive(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """503 with the reason where the database does not answer; touches nothing else."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return JsonResponse({"database": "does not answer"}, status=503)
    return JsonResponse({"database": "ok"})


#: Seconds after which it is worth asking a busy or restarting database again.
RETRY_AFTER_S = "5"


def broken(request: HttpRequest) -> HttpResponse:
    """The answer to what nobody caught: 503 where the database is away, else 500.

    Touches no database itself, and no session: both may be what is broken.
    """
    away = isinstance(sys.exc_info()[1], OperationalError | InterfaceError)
    if request.path.startswith("/api/"):
        return broken_api(away)
    if not away:
        return HttpResponse(render_to_string("500.html"), status=500)
    sent = request.method not in ("GET", "HEAD")
    context = {"sent": sent, "again": "/" if sent else request.get_full_path()}
    response = HttpResponse(render_to_string("503.html", context), status=503)
    response["Retry-After"] = RETRY_AFTER_S
    return response


def broken_api(away: bool) -> JsonResponse:
    if away:
        detail = "The database is busy or away; send the request again in a moment."
        name, title = "database-busy", "The database did not answer"
    else:
        detail = "This is our fault, and it was logged. Sending the same again may not help."
        name, title = "internal", "Something went wrong here"
    status = 503 if away else 500
    body = {"type": f"urn:annotate-and-align:{name}", "title": title, "status": status}
    response = JsonResponse(
        {**body, "detail": detail}, status=status, content_type="application/problem+json"
    )
    if away:
        response["Retry-After"] = RETRY_AFTER_S
    return response
