"""Odd text wherever a request has text, on the database that takes the least of it."""

from __future__ import annotations

import copy
import json
import re
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from server.api.route_list import list_routes
from server.api.schemas.analysis import ScoreBody, TraceBody
from server.api.schemas.chat import ChatRequest
from server.api.schemas.completions import CompletionRequest
from server.api.schemas.keys import KeyRequest
from server.api.schemas.registry import ProfileDraft
from server.api.schemas.tokenize import DetokenizeRequest, TokenizeRequest
from server.app import create_app
from server.resolver.library import load_direction_blob
from server.settings import Settings
from server.store import Store
from tests.server.jobs.fake_kinds import Steps
from tests.server.store import postgres
from tests.server.store.conftest import cluster  # noqa: F401

from .conftest import chat, connect, create_cheerful, profile, vector
from .echo_engine import EchoEngine

STEERING = "/v1/steering"
INLINE = {"operation": "add", "direction": "cheer", "strength": 1.0}
# NUL is what PostgreSQL cannot store; the rest is what drivers, encodings or JSON may trip over.
ODD = ("\0", "x\0", "\x01\x7f\x85", "\ud800", "\uffff", "\u202e", "a" * 70_000, "%00", "'\"\\;--")

BODIES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/chat/completions", chat(user="u", steering={"profile": "cheerful"}, stop=["s"])),
    (
        "POST",
        "/v1/chat/completions",
        chat(steering={"interventions": [INLINE]}, metadata={"a": "b"}),
    ),
    ("POST", "/v1/completions", {"model": "echo", "prompt": "x", "vllm_xargs": {"steering": "{}"}}),
    ("POST", "/tokenize", {"model": "echo", "prompt": "x"}),
    ("POST", f"{STEERING}/directions", vector("v", tags=["t"], provenance={"a": "b"})),
    ("POST", f"{STEERING}/profiles", profile("p", description="d", requires=["restricted"])),
    ("POST", f"{STEERING}/profiles:validate", profile("p", description="d")),
    ("PUT", f"{STEERING}/aliases/calm", {"profile": "cheerful"}),
    ("POST", "/v1/admin/keys", {"name": "k", "scopes": ["chat"], "profiles_allow": ["p"]}),
    ("POST", f"{STEERING}/jobs", {"kind": "steps", "steps": 1, "error": "e", "use": "cheer"}),
    ("POST", f"{STEERING}/analyze/trace", {"prompt": "x", "readouts": [{"direction": "cheer"}]}),
    (
        "POST",
        f"{STEERING}/analyze/heads",
        {"prompts": ["x"], "probe": "probe", "profile": "p", "method": "causal"},
    ),
]


def spoiled(value: Any, odd: str) -> Iterator[Any]:
    """The value with each of its texts and names in turn replaced."""
    if isinstance(value, str):
        yield odd
    elif isinstance(value, dict):
        for name, item in value.items():
            yield {odd if key == name else key: entry for key, entry in value.items()}
            for other in spoiled(item, odd):
                yield {**value, name: other}
    elif isinstance(value, list):
        for index, item in enumerate(value):
            for other in spoiled(item, odd):
                yield [*value[:index], other, *value[index + 1 :]]


@pytest.fixture
async def client(
    request: pytest.FixtureRequest, tmp_path: Path, engine: EchoEngine
) -> AsyncIterator[httpx.AsyncClient]:
    running: postgres.Cluster = request.getfixturevalue("cluster")
    url = running.shared_database()
    store = Store.open(tmp_path, url, load=load_direction_blob, low_water_bytes=0)
    settings = Settings(data_dir=tmp_path)
    app = create_app(settings, engine, store, kinds=[Steps().kind])  # type: ignore[arg-type]
    async with connect(app) as http:
        await create_cheerful(http)
        yield http
    store.close()


@pytest.mark.parametrize("odd", ODD, ids=ascii)
async def test_no_text_of_a_body_is_a_fault_of_the_server(
    client: httpx.AsyncClient, odd: str
) -> None:
    failed = {}
    for method, path, body in BODIES:
        whole = await client.request(method, path, json=body)
        assert whole.is_success or path.endswith("/heads"), whole.text  # or it shows nothing
        for document in spoiled(copy.deepcopy(body), odd):
            text = json.dumps(document)
            answer = await client.request(
                method, path, content=text, headers={"content-type": "application/json"}
            )
            if answer.status_code >= 500:
                failed[path, text[:300]] = answer.text
    assert failed == {}


@pytest.mark.parametrize("odd", ODD, ids=ascii)
async def test_no_text_of_a_url_or_header_is_a_fault_of_the_server(
    client: httpx.AsyncClient, odd: str
) -> None:
    failed = {}
    text = quote(odd[:2000].encode("utf-8", "surrogatepass"))
    header = odd[:2000].encode("utf-8", "surrogatepass").replace(b"\0", b"\xff")
    for route in list_routes(client._transport.app):  # type: ignore[attr-defined]
        path = route.path.replace(":path}", "}")
        for name in ("name", "alias", "job_id", "key_id", "model"):
            path = path.replace(f"{{{name}}}", text)
        queries = ("", *(f"?{name}={text}" for name in ("cursor", "limit", "status", "kind")))
        queries += (*(f"?{name}={text}" for name in ("site", "tag", "action")),)
        for query in queries:
            headers = dict.fromkeys(("if-match", "idempotency-key", "x-steering-profile"), header)
            answer = await client.request(route.method, path + query, headers=headers)
            if answer.status_code >= 500:
                failed[route.method, path[:100], query[:100]] = answer.text
    assert failed == {}


@pytest.mark.parametrize("odd", ["\0", "\x01", "\ud800", "a" * 70_000], ids=ascii)
async def test_no_text_in_a_file_is_a_fault_of_the_server(
    client: httpx.AsyncClient, odd: str
) -> None:
    for place in ("name", "key", "value", "file name", "form"):
        tensor = {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}
        name = odd if place == "name" else "vector"
        extra = {"a" if place != "key" else odd: odd if place == "value" else "b"}
        head = json.dumps({name: tensor, "__metadata__": extra}).encode()
        data = struct.pack("<Q", len(head)) + head + struct.pack("<8f", *[1.0] * 8)
        metadata = {"name": "f", "kind": "vector", "site": "resid_post", "layers": [1]}
        if place == "form":
            metadata["description"] = odd
        shown = odd.encode("ascii", "replace").decode() if place == "file name" else "f"
        answer = await client.post(
            f"{STEERING}/directions",
            files={"file": (shown, data)},
            data={"metadata": json.dumps(metadata)},
        )
        assert answer.status_code < 500, (place, answer.text)


WRONG = ({"zzz": []}, [[]], "\u00e9 !", -(10**9), 1.5, True, [], {}, "", "{")


def wronged(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The value with one part of it wrong, and the path of that part."""
    if isinstance(value, dict):
        for name, item in value.items():
            inner = f"{path}.{name}" if path else name
            yield from ((inner, {**value, name: wrong}) for wrong in WRONG)
            yield from ((at, {**value, name: other}) for at, other in wronged(item, inner))
        inner = f"{path}.zzz" if path else "zzz"
        yield inner, {**value, "zzz": 1}
    elif isinstance(value, list):
        for index, item in enumerate(value):
            before, after, inner = value[:index], value[index + 1 :], f"{path}[{index}]"
            yield from ((inner, [*before, wrong, *after]) for wrong in WRONG)
            yield from ((at, [*before, other, *after]) for at, other in wronged(item, inner))


def unset() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Requests with each field of the OpenAI routes given wrongly."""
    text = {"model": "echo", "prompt": "x"}
    for path, model, body in (
        ("/v1/chat/completions", ChatRequest, chat()),
        ("/v1/completions", CompletionRequest, text),
        ("/tokenize", TokenizeRequest, {"prompt": "x"}),
        ("/detokenize", DetokenizeRequest, {"tokens": [1]}),
        (
            f"{STEERING}/analyze/trace",
            TraceBody,
            {"prompt": "x", "readouts": [{"direction": "cheer"}]},
        ),
        (f"{STEERING}/analyze/score", ScoreBody, {"prompt": "x"}),
        ("/v1/admin/keys", KeyRequest, {"name": "k", "scopes": ["chat"]}),
        (f"{STEERING}/profiles:validate", ProfileDraft, profile("p")),
    ):
        for name in model.model_fields:
            for wrong in WRONG:
                yield "POST", path, name, {**body, name: wrong}


async def test_every_refusal_of_a_field_names_it(client: httpx.AsyncClient) -> None:
    probe = vector("probe", kind="probe", tensors={"weight": [1.0] * 8, "bias": [0.5]})
    assert (await client.post(f"{STEERING}/directions", json=probe)).status_code == 201
    cases = list(unset())
    for method, path, body in BODIES:
        cases += [(method, path, at, wrong) for at, wrong in wronged(body)]
    unnamed = {}
    for method, path, at, body in cases:
        answer = await client.request(method, path, json=body)
        if answer.is_success or answer.status_code == 500:  # the echo engine scores nothing
            assert answer.is_success or path.endswith(("/score", "/heads"))
            continue
        error = answer.json()["error"]
        if error["param"] is None or _top(error["param"]) != _top(at):
            unnamed[path, at, str(body)[:200]] = error
    assert unnamed == {}


@pytest.mark.parametrize("wrong", ["zzz", "-1", "", "\u00e9"])
async def test_every_refusal_of_a_query_or_header_names_it(
    client: httpx.AsyncClient, wrong: str
) -> None:
    num_refused = 0
    for route in list_routes(client._transport.app):  # type: ignore[attr-defined]
        if route.method != "GET" or "{" in route.path:
            continue
        for name in ("cursor", "limit", "status", "kind", "site", "tag", "action", "zzz"):
            answer = await client.get(route.path, params={name: wrong})
            if not answer.is_success:
                num_refused += 1
                assert answer.json()["error"]["param"] == name, (route.path, name, answer.text)
    assert num_refused > 20
    for name in ("Idempotency-Key", "X-Steering-Profile", "X-Steering-Prompt-Tokens"):
        path = "/v1/admin/keys" if name == "Idempotency-Key" else "/v1/completions"
        body = {"model": "echo", "prompt": "x"}
        answer = await client.post(path, json=body, headers={name: wrong.encode() + b"!"})
        assert answer.json()["error"]["param"] == name, answer.text


def _top(path: str) -> str:
    return re.split(r"[.\[]", path)[0]
