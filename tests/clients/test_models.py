"""The client's models against the server's OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from coxswain_client.models import analysis, generation, jobs, record, registry, server, steering
from tests.server.api.documented import DOCUMENT

_SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
_NAMES: dict[str, tuple[str, ...]] = {
    "AppliedSteering": ("ChatSteering", "CompletionSteering"),
    "Archived": ("DirectionsArchived", "ProfilesArchived"),
    "Choice": ("ChatChoice",),
    "ChunkChoice": ("ChatChunkChoice",),
    "Job": ("Job", "JobWithRequest"),
    "Message": ("AnswerMessage",),
    "Page": ("DirectionPage", "JobPage"),
    "PlanReport": ("ProfileValidation",),
    "Tokens": ("Tokenized",),
}
"""Schemas of what is answered that are called otherwise there."""

_STEERING = _SCHEMAS["SteeringFields"]["properties"]
_OPERATIONS = [form["$ref"] for form in _STEERING["interventions"]["items"]["oneOf"]]
_WRITTEN: dict[Any, list[dict[str, Any]]] = {
    generation.ChatMessage: [_SCHEMAS["Message"]],
    steering.Gate: [_SCHEMAS["RequestGate"], _SCHEMAS["TokenGate"]],
    steering.Intervention: [_SCHEMAS[ref.rsplit("/", 1)[1]] for ref in _OPERATIONS],
    steering.Monitor: [_SCHEMAS["Monitor"]],
    steering.SteeringOptions: [_SCHEMAS["SteeringFields"]],
}
"""Schemas of what is sent."""

_MODULES = (analysis, generation, jobs, record, registry, server, steering)
_MODELS: dict[str, type[record.Record]] = {
    name: found
    for module in _MODULES
    for name, found in vars(module).items()
    if isinstance(found, type)
    and found.__module__ == module.__name__
    and issubclass(found, record.Record)
    and name not in ("Generated", "Record")
}


def _told(name: str) -> tuple[str, ...]:
    return _NAMES.get(name, (name,))


def _schema(name: str) -> dict[str, Any]:
    return _MODELS[name].model_json_schema()


@pytest.mark.parametrize("name", _MODELS)
def test_what_the_client_reads_is_what_the_server_tells(name: str) -> None:
    own = _schema(name)
    told: dict[str, Any] = {}
    for schema in _told(name):
        told |= _SCHEMAS[schema]["properties"]
    unknown = set(own["properties"]) - set(told)
    assert not unknown, "the server does not tell of these"
    wrong = [
        problem
        for member, schema in own["properties"].items()
        for problem in _misfits(schema, told[member], member, own.get("$defs", {}))
    ]
    assert not wrong


@pytest.mark.parametrize("name", _MODELS)
def test_what_the_server_always_tells_has_a_member(name: str) -> None:
    known = set(_schema(name)["properties"])
    always = set.intersection(*(set(_SCHEMAS[s].get("required", ())) for s in _told(name)))
    assert not always - known - {"object"}


@pytest.mark.parametrize("kind", _WRITTEN, ids=lambda kind: kind.__name__)
def test_what_the_client_writes_is_what_the_server_reads(kind: Any) -> None:
    forms = _WRITTEN[kind]
    read: dict[str, list[Any]] = {}
    for form in forms:
        for member, schema in form["properties"].items():
            read.setdefault(member, []).extend(_forms(schema, _SCHEMAS))
    written = get_type_hints(kind)
    assert not set(written) - set(read), "the server does not read these"
    always = set.intersection(*(set(form.get("required", ())) for form in forms))
    assert not always - set(written), "the server asks for these"
    for member, hint in written.items():
        values = {value for form in read[member] for value in form.get("enum", [form.get("const")])}
        for literal in (hint, *get_args(hint)):
            if get_origin(literal) is Literal and {} not in read[member]:
                assert set(get_args(literal)) <= values, member


def _misfits(
    own: dict[str, Any], told: dict[str, Any], path: str, defs: dict[str, Any]
) -> Iterator[str]:
    """What the server may tell that the client would refuse."""
    for form in _forms(told, _SCHEMAS):
        forms = list(_forms(own, defs))
        if form == {} or {} in forms:
            continue
        kind = form.get("type") or _type_of(form)
        fitting = [f for f in forms if kind in _accepted(f)]
        if not fitting:
            yield f"{path}: {kind} is not one of {[f.get('type') for f in forms]}"
            continue
        [mine, *_] = fitting
        if kind == "array" and "items" in mine:
            yield from _misfits(mine["items"], form.get("items", {}), f"{path}[]", defs)
        elif kind == "object":
            for member, schema in mine.get("properties", {}).items():
                if member in form.get("properties", {}):
                    yield from _misfits(
                        schema, form["properties"][member], f"{path}.{member}", defs
                    )
        elif "enum" in mine or "const" in mine:
            values = set(form.get("enum", [form.get("const")]))
            yield from (
                f"{path}: {value}"
                for value in sorted(values - set(mine.get("enum", [mine.get("const")])), key=str)
            )


def _accepted(form: dict[str, Any]) -> set[str]:
    kind = form.get("type") or _type_of(form)
    return {"number", "integer"} if kind == "number" else {kind}


def _type_of(form: dict[str, Any]) -> str:
    value = form["const"] if "const" in form else form["enum"][0]
    return {str: "string", bool: "boolean", int: "integer", type(None): "null"}[type(value)]


def _forms(schema: dict[str, Any], defs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in schema:
        schema = defs[schema["$ref"].rsplit("/", 1)[1]]
    parts = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if not parts:
        told = {key: value for key, value in schema.items() if key not in ("description", "title")}
        yield told if told.keys() & {"type", "enum", "const"} else {}
    for part in parts:
        yield from _forms(part, defs)
