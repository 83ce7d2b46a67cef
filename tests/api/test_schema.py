"""The OpenAPI document: sound, complete, and what the answers really are."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from django.core.management import call_command
from django.test import Client

from tests.api.test_every_route import TABLE, address
from tests.api.world import Caller, World


@pytest.fixture
def document(db: None) -> dict[str, Any]:
    reply = Caller().get("/schema")
    assert reply.status_code == 200
    return json.loads(reply.content)


def operation(document: dict[str, Any], method: str, route: str) -> dict[str, Any]:
    path = re.sub(r"<\w+:(\w+)>", r"{\1}", route).replace("{pk}", "{id}")
    return document["paths"][f"/api/v1/{path}"][method.lower()]


def test_it_validates_without_a_warning(tmp_path: Any) -> None:
    call_command("spectacular", validate=True, fail_on_warn=True, file=str(tmp_path / "schema.yml"))


def test_every_operation_is_there_named_and_with_its_problems(document: dict[str, Any]) -> None:
    names, pages = [], 0
    for method, route in TABLE:
        found = operation(document, method, route)
        names.append(found["operationId"])
        assert {"401", "403"} <= set(found["responses"])
        assert "<" in route or "requestBody" in found or method == "GET"
        for code, answer in found["responses"].items():
            if int(code) >= 400:
                assert set(answer["content"]) == {"application/problem+json"}
        if "<" in route:
            assert "404" in found["responses"]
        (good, *_) = (a for c, a in found["responses"].items() if c in ("200", "201", "204"))
        if "Paginated" in str(good):
            assert {"limit", "offset"} <= {each["name"] for each in found["parameters"]}
            pages += 1
        if "requestBody" in found:
            assert {"400", "413", "415", "422"} <= set(found["responses"])
        assert {"token": []} in found["security"]
        assert {"cookieAuth": []} in found["security"]
    assert pages == 14
    assert len(set(names)) == len(names) == sum(len(path) for path in document["paths"].values())
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", name) for name in names)
    problem = document["components"]["schemas"]["Problem"]
    assert set(problem["required"]) == {"type", "title", "status", "detail"}


@pytest.mark.parametrize(("method", "route"), list(TABLE), ids=" ".join)
def test_answers_are_what_the_document_says(
    method: str, route: str, world: World, document: dict[str, Any]
) -> None:
    for sender in (world.bob, world.rita, world.charlie, Caller()):
        reply = sender.send(method, address(route, world), TABLE[method, route].body)
        told = operation(document, method, route)["responses"]
        assert str(reply.status_code) in told
        if reply.status_code == 204 or reply.streaming:
            continue
        (media,) = told[str(reply.status_code)]["content"].values()
        # OpenAPI 3.0 spells "or null" its own way.
        schema = strict(media["schema"] | {"components": document["components"]})
        jsonschema.validate(reply.json(), schema)


def test_the_comparison_itself_sees_a_difference(document: dict[str, Any]) -> None:
    page = {"count": 1, "next": None, "previous": None}
    schema = strict(
        {"$ref": "#/components/schemas/PaginatedTokenOutList", "components": document["components"]}
    )
    row = {"id": 1, "name": "x", "prefix": "aa_x", "created_at": "2026-01-01T00:00:00Z",
           "last_used_at": None}  # fmt: skip
    jsonschema.validate({**page, "results": [row]}, schema)
    for other in ({**row, "secret": "x"}, {**row, "id": None}, {"id": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**page, "results": [other]}, schema)


def strict(schema: Any) -> Any:
    """As JSON Schema: `nullable` understood, and no property beyond those named."""
    if isinstance(schema, list):
        return [strict(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(inner) for key, inner in schema.items() if key != "nullable"}
    if "properties" in found and isinstance(found["properties"], dict) and "type" in found:
        found.setdefault("additionalProperties", False)
    if schema.get("nullable") is True:
        return {"anyOf": [found, {"type": "null"}]}
    return found


def test_the_docs_need_no_inline_script_or_style(client: Client) -> None:
    page = client.get("/api/v1/docs")
    assert page.status_code == 200
    assert "unsafe" not in page["Content-Security-Policy"]
    text = page.content.decode()
    assert "<style" not in text
    assert re.findall(r"<script(?! src=)", text) == []
    script = client.get("/api/v1/docs?script")
    assert script["Content-Type"].startswith("application/javascript")
    assert "SwaggerUIBundle" in script.content.decode()
