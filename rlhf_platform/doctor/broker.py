"""The broker, which only cuts the wait short: none is no catastrophe."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from rlhf_platform.broker import embedded_answers, make_broker
from rlhf_platform.doctor.findings import PATIENCE_S, Finding, first_line

GOES_ON = "work goes on: workers look at the job table every second anyway"


def check_broker() -> list[Finding]:
    """Does the broker answer? It only cuts the wait short, so none is no catastrophe."""
    url = settings.BROKER_URL
    if url == "none":
        return [Finding("broker", "ok", "none: workers look at the job table every second")]
    try:
        make_broker(url)
    except (ValueError, TypeError) as error:
        said = f"BROKER_URL is not understood ({without_password(first_line(error), url)})"
        return [Finding("broker", "bad", said, "use embedded, none, redis://… or amqp://…")]
    if url == "embedded":
        if embedded_answers():
            return [Finding("broker", "ok", "the embedded Valkey answers")]
        said = f"the embedded Valkey is not running; {GOES_ON}"
        return [Finding("broker", "warning", said, "manage.py up (or worker) starts it")]
    parts = urlsplit(url)
    name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    try:
        (ask_rabbitmq if parts.scheme.startswith("amqp") else ask_redis)(url)
    except Exception as error:  # what a client library raises for a dead server is its own affair
        why = without_password(first_line(error), url)
        said = f"{name} does not answer ({why}); {GOES_ON}"
        return [Finding("broker", "warning", said, "start it, or correct BROKER_URL")]
    return [Finding("broker", "ok", f"{name} answers")]


def without_password(text: str, url: str) -> str:
    password = urlsplit(url).password
    return text.replace(password, "***") if password else text


def ask_redis(url: str) -> None:
    import redis

    client = redis.Redis.from_url(
        url, socket_connect_timeout=PATIENCE_S, socket_timeout=PATIENCE_S, retry=None
    )
    try:
        client.ping()
    finally:
        client.close()


def ask_rabbitmq(url: str) -> None:
    import pika

    parameters: Any = pika.URLParameters(url)
    # pika's own error for a dead server says nothing.
    socket.create_connection((parameters.host, parameters.port), PATIENCE_S).close()
    parameters.socket_timeout = parameters.stack_timeout = PATIENCE_S
    parameters.blocked_connection_timeout, parameters.connection_attempts = PATIENCE_S, 1
    pika.BlockingConnection(parameters).close()
