"""The OpenAPI document: valid, complete, and true of what is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from server.api.openapi import new_app
from server.api.route_list import list_routes
from server.auth.permissions import Permission
from server.store import JobStatus, ProfileStatus
from steering.directions import DirectionKind
from steering.documents import GateToken, Measure, Opens, Operation, Per, StrengthUnit, Tokens
from steering.sites import Site
from tests.server.api.conftest import chat, connect
from tests.server.api.documented import DOCUMENT, problems_of

from .refusals.documents import CASES
from .refusals.runner import application

_NO_BODY = ("publish", "resume", "rerun")  # posts that say all by their path


def _operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def _media() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Operation, part and media type of everything that is sent or answered."""
    for name, operation in _operations():
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            yield name, f"body {kind}", media
        for status, answer in operation["responses"].items():
            for kind, media in answer["content"].items():
                yield name, f"{status} {kind}", media


def test_it_is_valid() -> None:
    validate(DOCUMENT)


def test_it_has_every_route() -> None:
    routes = {f"{r.method} {r.path.replace(':path', '')}" for r in list_routes(new_app())}
    assert routes == {name for name, _ in _operations()}


def test_everything_has_a_schema_and_an_example_of_it() -> None:
    wrong = []
    for name, part, media in _media():
        problems = (
            problems_of(media["schema"], media["example"]) if "example" in media else ["none"]
        )
        wrong += [f"{name} {part}: {problem}" for problem in problems]
    assert not wrong, "\n".join(wrong)


def test_whatever_changes_something_says_what_it_is_sent() -> None:
    silent = [
        name
        for name, operation in _operations()
        if name.startswith(("POST", "PUT")) and "requestBody" not in operation
    ]
    assert all(name.endswith(_NO_BODY) for name in silent), silent
    assert len(silent) == len(_NO_BODY)


def test_every_operation_has_an_answer_and_a_failure() -> None:
    for name, operation in _operations():
        answers = [found for status, found in operation["responses"].items() if status[0] == "2"]
        assert len(answers) == 1, name
        assert answers[0]["content"], name
        failure = operation["responses"]["default"]["content"]["application/json"]["schema"]
        assert failure == {"$ref": "#/components/schemas/Failure"}, name


@pytest.mark.parametrize(
    "kind",
    [
        *(DirectionKind, GateToken, JobStatus, Measure, Opens, Operation, Per, Permission),
        *(ProfileStatus, Site, StrengthUnit, Tokens),
    ],
)
def test_enumerations_are_told_in_full(kind: type[StrEnum]) -> None:
    assert DOCUMENT["components"]["schemas"][kind.__name__]["enum"] == list(kind)


def test_interventions_are_told_apart_by_their_operation() -> None:
    items = DOCUMENT["components"]["schemas"]["SteeringFields"]["properties"]["interventions"]
    told = items["items"]["discriminator"]
    assert told["propertyName"] == "operation"
    assert set(told["mapping"]) == set(Operation)


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.is_form], ids=lambda case: case.name
)
def test_documents_that_are_accepted_are_of_their_schema(case: Any) -> None:
    """The recorded ones; with null for absent, which schemas do not tell of."""
    body = DOCUMENT["paths"][_template(case.path)][case.method.lower()]["requestBody"]
    schema = body["content"]["application/json"]["schema"]
    assert not problems_of(schema, _without_nulls(case.document))


def _template(path: str) -> str:
    return "/v1/steering/aliases/{alias}" if "/aliases/" in path else path


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat("hello", logprobs=True, return_token_ids=True)),
        ("/v1/completions", {"model": "echo", "prompt": "hello", "logprobs": 1, "echo": True}),
    ],
    ids=["chat", "completion"],
)
async def test_chunks_are_of_their_schema(path: str, body: Any, tmp_path: Path) -> None:
    operation = DOCUMENT["paths"][path]["post"]
    schema = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]
    asked = {**body, "stream": True, "steering": {"profile": "cheerful"}}
    options = [{}, {"stream_options": {"include_usage": True}}]
    async with application(tmp_path) as app, connect(app) as client:
        for more in options:
            text = (await client.post(path, json={**asked, **more})).text
            *chunks, done = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
            assert done == "[DONE]"
            assert [p for chunk in chunks for p in problems_of(schema, json.loads(chunk))] == []
