"""`{% push_form snapshot %}`: the button that pushes a snapshot or a version, and the last push."""

from __future__ import annotations

from typing import Any

from django import template
from django.urls import reverse

from annotate.models import Snapshot
from training.models import Job, ModelVersion
from training.selectors.pushes import last_pushes

register = template.Library()


@register.inclusion_tag("training/push_form.html", takes_context=True)
def push_form(context: template.RequestContext, thing: Snapshot | ModelVersion) -> dict[str, Any]:
    """The form of one thing. A page that lists many of them asks for their pushes once."""
    snapshot = isinstance(thing, Snapshot)
    kind = Job.Kind.PUSH_SNAPSHOT if snapshot else Job.Kind.PUSH_MODEL
    asked: Any = context.render_context
    if kind not in asked:
        asked[kind] = last_pushes(workspace_id=thing.workspace_id, kind=kind)
    return {
        "csrf_token": context.get("csrf_token"),
        "action": reverse(kind.value, args=[thing.pk]),
        "push": asked[kind].get(thing.pk),
        "possible": isinstance(thing, Snapshot) or thing.kind != ModelVersion.Kind.BASE,
    }
