"""Every field of every route that takes JSON, with values at the ends of what JSON can say."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from fastapi import FastAPI

from server.api.openapi import document
from server.app import create_app
from server.engine.async_engine import AsyncEngine
from server.resolver.library import load_direction_blob
from server.settings import Settings
from server.store import Store
from tests.server.api.conftest import connect

from .conftest import QUESTION, THINKING, fill
from .test_cliff_route import CHATS

NUMBERS: Final = (-1, 0, 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 0.5, -0.5, 5e-324, 1e308)
OTHERS: Final[tuple[Any, ...]] = (
    None,
    True,
    "",
    "x",
    "\x00",
    "\ud800",
    [],
    {},
    [[]],
    {"x": 0},
    ["x"],
    [-1],
    [2**64],
)
LONG: Final = ([0] * 3000, ["x"] * 3000, "x" * 3000)

SCOPE: Final = {
    "tokens": ["all"],
    "windows": [[0, 4]],
    "generated_windows": [[0, 2]],
    "prompt_indices": [-1],
    "exclude": {"windows": [[90, 92]]},
}
ITEM: Final = {
    "operation": "add",
    "direction": "push",
    "strength": 1.0,
    "unit": "raw",
    "layers": [2],
    "site": "resid_post",
    "scope": SCOPE,
    "schedule": {"kind": "ramp", "tokens": 4, "start": 0.0, "end": 1.0},
    "gate": {"direction": "push", "threshold": 0.0, "per": "token"},
}
PLAIN: Final = {"interventions": [{"operation": "add", "direction": "push"}]}
STEERING: Final = {"interventions": [ITEM], "monitors": [{"direction": "push", "layer": 2}]}
SIDES: Final = {
    side: [f"{word} {number}" for number in range(16)]
    for side, word in (("positive", "Yes"), ("negative", "No"))
}
HELD_OUT: Final = {side: [f"{text} more" for text in texts[:4]] for side, texts in SIDES.items()}
THOUGHTS: Final = {
    side: [[{"role": "user", "content": text}, CHATS[0][-1]] for text in texts]
    for side, texts in SIDES.items()
}
HELD_OUT_THOUGHTS: Final = {
    side: [[{"role": "user", "content": text}, CHATS[0][-1]] for text in texts]
    for side, texts in HELD_OUT.items()
}
JOBS: Final[dict[str, dict[str, Any]]] = {
    "fit": {
        "name": "made",
        "method": "probe",
        "layers": {"from": 0.3, "to": 0.4},
        "data": {**SIDES, "validation": HELD_OUT},
        "options": {"l2": 1.0},
        "seed": 1,
    },
    "sweep": {
        "intervention": {"operation": "add", "direction": "push"},
        "strengths": [1.0],
        "behaviour_tokens": ["I"],
        "data": {"prompts": ["Hello"], "neutral": ["Good day"]},
    },
    "cliff_probe": {"name": "probing", "data": {**THOUGHTS, "validation": HELD_OUT_THOUGHTS}},
    "cliff": {"conversations": CHATS, "probe": "probe"},
    "heads": {"prompts": ["Hello"], "probe": "probe", "percent": 10, "profile": "few"},
}
"""A small request of each kind."""

TEXT: Final = {"prompt": "Hello", "max_tokens": 2, "model": "tiny"}
CHAT: Final = {"messages": QUESTION, "max_tokens": 2, "model": "tiny"}
STREAM: Final = {"stream": True, "stream_options": {"include_usage": True}}
ANALYZE: Final = "/v1/steering/analyze"
BODIES: Final[list[tuple[str, dict[str, Any]]]] = [
    ("/v1/chat/completions", {**CHAT, "steering": PLAIN, **STREAM}),
    ("/v1/completions", {**TEXT, "steering": {"profile": "pushed", "strength": 1.0}}),
    ("/v1/tokenize", {"prompt": "Hello"}),
    ("/v1/tokenize", {"messages": THINKING}),
    ("/v1/detokenize", {"tokens": [1, 2]}),
    (
        "/v1/steering/directions",
        {
            "name": "given",
            "kind": "vector",
            "site": "resid_post",
            "layers": [1],
            "tensors": {"vector": [0.5] * 256},
        },
    ),
    ("/v1/steering/profiles", {"name": "made", **STEERING}),
    ("/v1/steering/profiles:validate", {"name": "made", "monitors": [{"direction": "push"}]}),
    ("/v1/steering/aliases/other", {"profile": "pushed"}),
    ("/v1/admin/keys", {"name": "k", "scopes": ["chat"], "requests_per_minute": 5}),
    (f"{ANALYZE}/trace", {"prompt": "Hi", "readouts": [{"direction": "push", "layer": 2}]}),
    (f"{ANALYZE}/score", {"messages": QUESTION, "continuation": " there"}),
    (f"{ANALYZE}/cliff", JOBS["cliff"]),
    (f"{ANALYZE}/heads", JOBS["heads"]),
    *[("/v1/steering/jobs", {"kind": kind, **body}) for kind, body in JOBS.items()],
]
BODILESS: Final = ("publish", "resume", "rerun")
"""Last parts of paths that take no body."""


@pytest.fixture
def app(model: AsyncEngine, tmp_path: Path) -> Iterator[FastAPI]:
    store = Store.open(tmp_path, load=load_direction_blob, low_water_bytes=0)
    yield create_app(Settings(data_dir=tmp_path, max_queued_jobs=10_000), model, store)
    store.close()


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(app) as client:
        await fill(client)
        yield client


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where something stands in a document, lists by their first entry."""
    if path:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value[:1])
    for key, entry in entries:
        yield from places(entry if isinstance(entry, dict | list) else {}, (*path, key))


def changed(body: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(body)
    inner: Any = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return made


async def send(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> httpx.Response:
    method = "PUT" if "/aliases/" in path else "POST"
    content = json.dumps(body).encode()
    return await http.request(
        method, path, content=content, headers={"content-type": "application/json"}
    )


async def fields(
    http: httpx.AsyncClient, app: FastAPI, path: str, body: dict[str, Any]
) -> list[tuple[str | int, ...]]:
    """Every place of a body, and every field there is beside one, as the server names them."""
    found = dict.fromkeys(places(body))
    for parent in [(), *(place for place in found if isinstance(at(body, place), dict))]:
        error = (await send(http, path, changed(body, (*parent, "zz"), 1))).json()["error"]
        known = re.search(r"; expected ([\w, ]+)$", error["message"])
        assert str(error["param"]).endswith("zz"), "a field that nobody knows is taken"
        if known:
            found |= dict.fromkeys((*parent, name) for name in known[1].split(", "))
    schemas = document(app)["components"]["schemas"]
    for operation in document(app)["paths"].get(path, {}).values():
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        found |= dict.fromkeys((field,) for field in schemas.get(name, {}).get("properties", ()))
    return list(found)


def at(body: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        body = body[key]
    return body


def test_every_route_that_takes_json_is_swept(app: FastAPI) -> None:
    swept = {path.replace("/other", "/{alias}") for path, _ in BODIES}
    taking = {
        path.replace("/tokenize", "/v1/tokenize").replace("/detokenize", "/v1/detokenize")
        if path in ("/tokenize", "/detokenize")
        else path
        for path, operations in document(app)["paths"].items()
        if {"post", "put", "patch"} & set(operations) and not path.endswith(BODILESS)
    }
    assert taking == swept
    assert set(app.state.services.jobs.kinds) == set(JOBS)


@pytest.mark.parametrize(
    ("path", "body"),
    BODIES,
    ids=[f"{path.rpartition('/')[2]}-{i}" for i, (path, _) in enumerate(BODIES)],
)
async def test_no_value_of_a_field_is_our_fault(
    http: httpx.AsyncClient, app: FastAPI, path: str, body: dict[str, Any]
) -> None:
    plain = await send(http, path, body)
    assert plain.status_code < 300, plain.text
    faults = []
    for place in await fields(http, app, path, body):
        for value in (*NUMBERS, *OTHERS, *LONG):
            answer = await send(http, path, changed(body, place, value))
            if answer.status_code >= 500:
                faults.append((place, str(value)[:40], answer.text[:200]))
    assert not faults


async def test_no_job_that_was_taken_in_fails_by_our_fault(
    http: httpx.AsyncClient, app: FastAPI
) -> None:
    """With numbers at the ends of what a field takes; what cannot be fitted says so."""
    taken = []
    for kind, body in JOBS.items():
        asked = {"kind": kind, **body}
        for place in await fields(http, app, "/v1/steering/jobs", asked):
            for value in (0, 2**63 - 1, 1e308) if place[0] != "data" else ():
                answer = await send(http, "/v1/steering/jobs", changed(asked, place, value))
                taken += [answer.json()] if answer.status_code == 202 else []
    jobs = app.state.services.jobs
    await jobs.start()
    try:
        for job in taken:
            async for _ in jobs.follow(job["id"]):
                pass
    finally:
        await jobs.stop()
    ended = [(await http.get(f"/v1/steering/jobs/{job['id']}")).json() for job in taken]
    assert {job["kind"] for job in ended} == set(JOBS)
    assert {job["status"] for job in ended} <= {"succeeded", "failed"}
    faults = [job for job in ended if job["status"] == "failed" and code(job) == "server_error"]
    assert not faults


def code(job: dict[str, Any]) -> str:
    return str(job["error"]["code"])
