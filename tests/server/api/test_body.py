"""Bodies by their shape: what is counted, what is given twice, and what the event loop does."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from server.api.http import body as reading
from server.api.http.body import Strictness, parse_json
from server.api.http.errors import BodyTooLargeError, DuplicateKeyError, InvalidUnicodeError
from server.api.route_list import list_routes
from server.app import create_app
from server.settings import Settings
from server.store import Store

from .conftest import chat, connect, create_cheerful, vector
from .echo_engine import EchoEngine

JSON = {"content-type": "application/json"}
TRICKY = st.text(st.sampled_from('"\\[]{},:é\n\u2028a'), max_size=6)
SCALARS = st.none() | st.booleans() | st.integers(-9, 99) | st.floats(-1, 1) | TRICKY
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TRICKY, inner, max_size=4),
    max_leaves=20,
)
DOCUMENTS = st.dictionaries(TRICKY, VALUES, max_size=4)

# Routes of the OpenAI API, and those that take no body: every other one reads what is ours.
OPENAI = {"/v1/chat/completions", "/v1/completions"}
OPENAI |= {f"{prefix}/{verb}tokenize" for prefix in ("", "/v1") for verb in ("", "de")}
BODILESS = {
    "/v1/steering/profiles/{name}/publish",
    "/v1/steering/jobs/{job_id}/resume",
    "/v1/steering/jobs/{job_id}/rerun",
}
NEVER_STORED = {f"/v1/steering/analyze/{what}" for what in ("trace", "score", "cliff", "heads")}


def weigh(value: Any) -> int:
    """Commas and brackets of a document, counted on the values."""
    if not isinstance(value, list | dict):
        return 0
    items = value if isinstance(value, list) else list(value.values())
    return max(len(items), 1) + sum(map(weigh, items))


@given(DOCUMENTS, st.integers(1, 9), st.booleans(), st.sampled_from([None, 1]))
def test_values_are_counted_wherever_a_slice_ends(
    document: dict[str, Any], slice_bytes: int, is_ascii: bool, indent: int | None
) -> None:
    data = json.dumps(document, ensure_ascii=is_ascii, indent=indent).encode()
    most = weigh(document)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_SLICE_BYTES", slice_bytes)
        assert parse_json(data, most) == document
        with pytest.raises(BodyTooLargeError):
            parse_json(data, most - 1)


@pytest.mark.parametrize("item", ["[]", "{}", '{"a":[]}', '""', "null", "1", '"\\\\"', "[[]]"])
async def test_no_route_parses_more_values_than_it_can_use(
    shared_app: FastAPI, shared: httpx.AsyncClient, item: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parser is never asked, so that nothing is built and nobody waits."""
    limits = shared_app.state.services.limits
    most = limits.upload.max_values
    data = ('{"messages":[' + ",".join([item] * (limits.max_body_bytes // len(item) - 99))) + "]}"
    data = data[: limits.max_body_bytes]
    monkeypatch.setattr(reading, "_MAX_CONTAINERS", 1000)
    for name in ("_MAX_CHAT_VALUES", "_MAX_DOCUMENT_VALUES", "_MAX_PROMPT_TOKENS"):
        monkeypatch.setattr(f"server.api.http.limits.{name}", 1000)
    monkeypatch.setattr("server.api.http.limits._MAX_TENSOR_VALUES", 1000)
    assert most > 1000
    shared.event_hooks = {}  # which parse answers
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("parsed"))
    for route in body_routes(shared_app):
        response = await shared.request(route[0], route[1], content=data, headers=JSON)
        assert response.status_code == 413, route
        assert "1,000" in response.text


def body_routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and path of every route that reads a body."""
    found = [(r.method, r.path) for r in list_routes(app) if r.method in ("POST", "PUT", "PATCH")]
    assert len(found) > 15
    return ((method, path) for method, path in found if path not in BODILESS)


async def test_a_name_given_twice_is_an_error_at_every_depth_of_what_is_ours(
    shared_app: FastAPI, shared: httpx.AsyncClient
) -> None:
    for method, path in body_routes(shared_app):
        for data, param in (
            (b'{"a":1,"a":1}', "a"),
            (b'{"x":[{"y":{"b":1,"b":2}}]}', "x[0].y.b"),
            (b'{"a":{"steering":{"p":1,"p":2}}}', "a.steering.p"),
            (b'{"steering":{"interventions":[{"q":1,"q":1}]}}', "steering.interventions[0].q"),
            (b'{"steering":{},"steering":{}}', "steering"),
        ):
            error = (await shared.request(method, path, content=data, headers=JSON)).json()["error"]
            if path in OPENAI and "steering" not in param:
                assert error["code"] != "duplicate_key"
            else:
                assert (error["code"], error["param"]) == ("duplicate_key", param), path


async def test_a_text_that_no_database_keeps_is_refused_before_it_is_asked(
    shared_app: FastAPI, shared: httpx.AsyncClient
) -> None:
    stored = {path for _, path in body_routes(shared_app)} - OPENAI - NEVER_STORED
    assert len(stored) >= 6
    for method, path in body_routes(shared_app):
        for data, param in (
            (b'{"a":["x\\u0000"]}', "a[0]"),
            (b'{"a":{"\\u0000":1}}', "a"),
            (b'{"a":{"b":[{"c":"\\u0000"}]}}', "a.b[0].c"),
        ):
            error = (await shared.request(method, path, content=data, headers=JSON)).json()["error"]
            is_refused = (error["code"], error["param"]) == ("invalid_unicode", param)
            assert is_refused is (path in stored), path


@given(st.lists(st.sampled_from(["a", "steering", "b"]), max_size=5), st.data())
def test_what_is_given_twice_is_told_by_where_it_stands(path: list[str], data: Any) -> None:
    names = data.draw(st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=5))
    text = "{" + ",".join(f'"{name}":{index}' for index, name in enumerate(names)) + "}"
    for name in reversed(path):
        text = f'{{"{name}":{text}}}'
    raw, is_double = text.encode(), len(set(names)) < len(names)
    for kind in Strictness:
        if is_double and (kind is not Strictness.OPENAI or "steering" in path):
            with pytest.raises(DuplicateKeyError) as caught:
                parse_json(raw, 1000, kind)
            prefix, _, last = str(caught.value.param).rpartition(".")
            assert (prefix.split(".") if prefix else []) == path
            assert names.count(last) > 1
        else:
            found = parse_json(raw, 1000, kind)
            for name in path:
                found = found[name]
            assert found == {name: index for index, name in enumerate(names)}  # the last wins


def test_nul_is_text_where_nothing_is_stored() -> None:
    raw = b'{"a":"\\u0000"}'
    assert parse_json(raw, 9, Strictness.OWN) == parse_json(raw, 9) == {"a": "\0"}
    with pytest.raises(InvalidUnicodeError, match="U\\+0000"):
        parse_json(raw, 9, Strictness.STORED)


@contextmanager
def loop_work() -> Iterator[Callable[[], int]]:
    """Lines that this thread, the event loop's, runs in code that is not the tests' own."""
    lines = 0
    tests = str(Path(__file__).parents[2])

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        callers = (frame, frame.f_back or frame)  # the echo engine's work is not the server's
        if any(of.f_code.co_filename.startswith(tests) for of in callers):
            return None
        lines += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lambda: lines
    finally:
        sys.settrace(before)


def of_chat(n: int) -> dict[str, Any]:
    return chat("x" * 10 * n, max_tokens=1)


BIG: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "one message": ("/v1/chat/completions", of_chat),
    "messages": (
        "/v1/chat/completions",
        lambda n: {**chat(max_tokens=1), "messages": [{"role": "user", "content": "x"}] * (n // 2)},
    ),
    "parts": (
        "/v1/chat/completions",
        lambda n: chat([{"type": "text", "text": "x"}] * n, max_tokens=1),  # type: ignore[arg-type]
    ),
    "nulls": ("/v1/chat/completions", lambda n: {**chat(), "metadata": [None] * 10 * n}),
    "token ids": (
        "/v1/completions",
        lambda n: {"model": "echo", "prompt": [1] * 5 * n, "max_tokens": 1},
    ),
    "echo": (
        "/v1/completions",
        lambda n: {
            "model": "echo",
            "prompt": "x" * 5 * n,
            "echo": True,
            "max_tokens": 1,
            "logprobs": 2,
        },
    ),
    "echo in a stream": (
        "/v1/completions",
        lambda n: {
            "model": "echo",
            "prompt": "x" * 5 * n,
            "echo": True,
            "max_tokens": 1,
            "logprobs": 2,
            "stream": True,
        },
    ),
    "tokenize": ("/tokenize", lambda n: {"prompt": "x" * 10 * n, "return_token_strs": True}),
    "detokenize": ("/detokenize", lambda n: {"tokens": [97] * 10 * n}),
    "trace": (
        "/v1/steering/analyze/trace",
        lambda n: {"prompt": [1] * 5 * n, "readouts": [{"direction": "cheer"}]},
    ),
    "score": ("/v1/steering/analyze/score", lambda n: {"prompt": [1] * 5 * n}),
    "heads": ("/v1/steering/analyze/heads", lambda n: {"prompts": ["x"] * n, "probe": "nope"}),
    "cliff": (
        "/v1/steering/analyze/cliff",
        lambda n: {"conversations": [[{"role": "user", "content": "x"}]] * n, "probe": "nope"},
    ),
    "profile": (
        "/v1/steering/profiles:validate",
        lambda n: {"name": "p", "interventions": [{"direction": "cheer"}] * n},
    ),
    "job": ("/v1/steering/jobs", lambda n: {"kind": "nope", "texts": ["x"] * 10 * n}),
    "direction": (
        "/v1/steering/directions",
        lambda n: vector("v", tensors={"vector": [1] * 4 * n}),
    ),
    "unknown fields": ("/v1/admin/keys", lambda n: {f"f{index}": 1 for index in range(2 * n)}),
}


@pytest.fixture
async def roomy(settings: Settings, store: Store) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings, EchoEngine(max_model_len=50_000), store)  # type: ignore[arg-type]
    async with connect(app) as client:
        await create_cheerful(client)
        client.event_hooks = {}  # which parse answers on this event loop
        yield client


@pytest.mark.parametrize("name", BIG)
@pytest.mark.parametrize("with_key", [False, True], ids=["", "Idempotency-Key"])
async def test_the_event_loop_does_no_work_that_grows_with_a_body(
    roomy: httpx.AsyncClient, name: str, with_key: bool
) -> None:
    path, make = BIG[name]
    keys, statuses = count(), set()

    async def work(size: int) -> int:
        data = json.dumps(make(size)).encode()
        assert len(data) > 4096, "a smaller one is read on the loop"
        headers = {**JSON, **({"idempotency-key": f"k{next(keys)}"} if with_key else {})}
        request = roomy.build_request("POST", path, content=data, headers=headers)
        with loop_work() as lines:
            response = await roomy.send(request)
            counted = lines()
        statuses.add(response.status_code)
        return counted

    await assert_does_not_grow(work, 1000, 4000)
    assert len(statuses) == 1


async def assert_does_not_grow(
    work: Callable[[int], Awaitable[int]], small: int, large: int
) -> None:
    """Fail where `work(large)` is 400 lines more than `work(small)` each time it is counted.

    What else the thread does meanwhile, such as finalisers of collected objects, only adds lines.
    """
    await work(small)  # warms what is made once
    before = await work(small)
    counts = []
    for _ in range(4):
        counts.append(await work(large))
        if counts[-1] - before < 400:
            return
    pytest.fail(f"{before} lines for a body of {small}, {counts} for one of {large}")


async def test_a_form_is_read_off_the_loop(roomy: httpx.AsyncClient) -> None:
    async def work(size: int) -> int:
        files = {"file": ("f", b"\r\n--\r" * size)}
        request = roomy.build_request(
            "POST", "/v1/steering/directions", files=files, data={"metadata": "{}"}
        )
        content = b"".join([part async for part in request.stream])  # type: ignore[union-attr]
        headers = {"content-type": request.headers["content-type"]}
        request = roomy.build_request(
            "POST", "/v1/steering/directions", content=content, headers=headers
        )
        with loop_work() as lines:
            assert (await roomy.send(request)).status_code == 422
            return lines()

    await assert_does_not_grow(work, 10_000, 80_000)
