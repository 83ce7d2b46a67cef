"""Small makers of rows with explicit arguments; each goes through the models, not the services."""

from __future__ import annotations

import hashlib
import json

from annotate.models import (
    Annotator,
    Answer,
    Comparison,
    Guideline,
    Judgment,
    Project,
    Prompt,
    Response,
)
from rlhf_platform.accounts.models import User, Workspace


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_project(workspace: Workspace, slug: str = "helpful", **fields: object) -> Project:
    project = Project.objects.create(workspace=workspace, slug=slug, name=slug.title(), **fields)
    Guideline.objects.create(project=project, version=1, text="Prefer the more helpful answer.")
    return project


def make_prompt(workspace: Workspace, text: str = "What is red?") -> Prompt:
    messages = [{"role": "user", "content": text}]
    digest = sha256(json.dumps(messages, ensure_ascii=False, sort_keys=True, separators=(",", ":")))
    return Prompt.objects.get_or_create(
        workspace=workspace, digest=digest, defaults={"messages": messages}
    )[0]


def make_response(prompt: Prompt, text: str) -> Response:
    return Response.objects.get_or_create(
        workspace=prompt.workspace, prompt=prompt, digest=sha256(text), defaults={"text": text}
    )[0]


def make_comparison(
    project: Project, prompt: str = "What is red?", a: str = "A colour.", b: str = "A fruit."
) -> Comparison:
    asked = make_prompt(project.workspace, prompt)
    first, second = make_response(asked, a), make_response(asked, b)
    digest = sha256("\n".join([asked.digest, *sorted([first.digest, second.digest])]))
    return Comparison.objects.create(
        workspace=project.workspace,
        project=project,
        prompt=asked,
        response_a=first,
        response_b=second,
        digest=digest,
        origin=Comparison.Origin.IMPORT,
        slots=project.overlap,
    )


def make_annotator(workspace: Workspace, user: User | None = None, name: str = "") -> Annotator:
    if user is not None:
        return Annotator.objects.get_or_create(
            workspace=workspace, user=user, defaults={"kind": Annotator.Kind.MEMBER}
        )[0]
    return Annotator.objects.get_or_create(
        workspace=workspace, kind=Annotator.Kind.IMPORTED, external_name=name or "someone"
    )[0]


def make_judgment(
    comparison: Comparison, annotator: Annotator, answer: str = Answer.A, **fields: object
) -> Judgment:
    return Judgment.objects.create(
        workspace=comparison.workspace,
        comparison=comparison,
        annotator=annotator,
        answer=answer,
        idempotency_key=f"{comparison.pk}-{annotator.pk}-{answer}",
        body_digest=sha256(answer),
        **fields,
    )
