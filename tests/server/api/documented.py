"""Holds answers against the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import httpx
from jsonschema import Draft202012Validator
from starlette.routing import compile_path

from server.api.openapi import document, new_app

__all__ = ["DOCUMENT", "check_documented", "problems_of", "validator"]

DOCUMENT: Final[dict[str, Any]] = document(new_app())
_REF: Final = "#/components/schemas/"


@cache
def validator(schema: str) -> Draft202012Validator:
    """Of a schema of the document, as JSON."""
    return Draft202012Validator({**json.loads(schema), "components": DOCUMENT["components"]})


def problems_of(schema: dict[str, Any], value: Any) -> list[str]:
    """What a value has that its schema forbids, or does not tell of."""
    errors = validator(json.dumps(schema)).iter_errors(value)
    return [*(f"{e.json_path}: {e.message[:200]}" for e in errors), *_untold(schema, value, "$")]


def _untold(schema: dict[str, Any], value: Any, path: str) -> Iterator[str]:
    """Members that no form of the schema names."""
    forms = list(_forms(schema))
    if isinstance(value, list):
        for form in forms:
            if "items" in form:
                for index, item in enumerate(value):
                    yield from _untold(form["items"], item, f"{path}[{index}]")
    elif isinstance(value, dict) and not any(form.get("additionalProperties") for form in forms):
        for name, item in value.items():
            told = [f["properties"][name] for f in forms if name in f.get("properties", {})]
            if told:
                yield from _untold({"anyOf": told}, item, f"{path}.{name}")
            else:
                yield f"{path}.{name}: not in the document"


def _forms(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].removeprefix(_REF)]
    parts = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if not parts:
        yield schema
    for part in parts:
        yield from _forms(part)


async def check_documented(response: httpx.Response) -> None:
    """Check that an answer in JSON is of the form its operation declares."""
    media_type = response.headers.get("content-type", "").partition(";")[0]
    if media_type != "application/json" or response.request.method == "HEAD":
        return
    declared = _answers(response.request).get(str(response.status_code))
    if declared is None and response.is_success:
        declared = next(iter(_answers(response.request).values()), None)
    body = json.loads(await response.aread())
    if response.is_success and declared is not None:
        problems = problems_of(declared["content"][media_type]["schema"], body)
    else:
        problems = problems_of({"$ref": f"{_REF}Failure"}, body)
    assert not problems, f"{response.request.method} {response.request.url}: {problems[:5]}"


def _answers(request: httpx.Request) -> dict[str, Any]:
    """Of the operation that a request is for, by status."""
    for path, pattern in _patterns():
        operation = DOCUMENT["paths"][path].get(request.method.lower())
        if operation is not None and pattern.fullmatch(request.url.path):
            answers: dict[str, Any] = operation["responses"]
            return {status: found for status, found in answers.items() if status != "default"}
    return {}


@cache
def _patterns() -> list[tuple[str, Any]]:
    """Paths with fewer parameters first, as the routes are told apart."""
    paths = sorted(DOCUMENT["paths"], key=lambda path: path.count("{"))
    return [(path, compile_path(path.replace("{model}", "{model:path}"))[0]) for path in paths]
