"""Bodies and heads that are not what HTTP and JSON allow: the right answer to each."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from server.api.route_list import list_routes

from .conftest import chat

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


def deep(levels: int) -> bytes:
    return b'{"model":"echo","x":' + b"[" * levels + b"]" * levels + b"}"


def with_number(literal: str) -> bytes:
    return (
        json.dumps(chat(temperature=0))
        .replace('"temperature": 0', f'"temperature": {literal}')
        .encode()
    )


BODIES: dict[str, tuple[bytes, int, str, str | None]] = {
    "empty": (b"", 400, "invalid_json", None),
    "cut": (b"{", 400, "invalid_json", None),
    "list": (b"[]", 400, "invalid_json", None),
    "null": (b"null", 400, "invalid_json", None),
    "not UTF-8": (b'{"model":"\xff"}', 400, "invalid_json", None),
    "UTF-16": (json.dumps(chat()).encode("utf-16"), 400, "invalid_json", None),
    "lone surrogate": (
        b'{"model":"echo","messages":[{"role":"user","content":"\\ud800"}]}',
        *(400, "invalid_unicode", "messages[0].content"),
    ),
    "lone surrogate in a key": (b'{"\\udfff":1}', 400, "invalid_unicode", None),
    "65 deep": (deep(64), 400, "invalid_json", None),
    "100,000 deep": (deep(100_000), 400, "invalid_json", None),
    "NaN": (with_number("NaN"), 400, "invalid_json", None),
    "Infinity": (with_number("-Infinity"), 400, "invalid_json", None),
    "1e999": (with_number("1e999"), 400, "invalid_json", None),
    "5,000 digits": (with_number("9" * 5000), 400, "invalid_json", None),
    "60 digits": (with_number("9" * 60), 400, "invalid_sampling", "temperature"),
    "steering twice": (
        b'{"model":"echo","messages":[],"steering":{},"steering":{"profile":"x"}}',
        *(400, "duplicate_key", "steering"),
    ),
    "100,000 messages": (
        json.dumps({"model": "echo", "messages": [1] * 100_000}).encode(),
        *(400, "context_length_exceeded", "messages"),
    ),
    "long by its characters": (
        json.dumps(chat("x" * 50_000)).encode(),
        *(400, "context_length_exceeded", "messages"),
    ),
    "too long by its tokens": (
        json.dumps(chat("x" * 3000, max_tokens=1)).encode(),
        *(400, "context_length_exceeded", "messages"),
    ),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_bad_body_is_named(shared: httpx.AsyncClient, name: str) -> None:
    body, status, code, param = BODIES[name]
    response = await shared.post(CHAT, content=body, headers=JSON)
    assert_error(response, status, code, param)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(chat("a\0b")).encode(),
        b'{"model":"no","model":"echo","messages":[{"role":"user","content":"x"}]}',
        json.dumps(chat("\U0001f600")).replace("\\", "\\").encode(),
    ],
    ids=[
        "NUL is legal text",
        "the last of other duplicates wins",
        "a surrogate pair is a character",
    ],
)
async def test_odd_but_legal_bodies_are_served(shared: httpx.AsyncClient, body: bytes) -> None:
    response = await shared.post(CHAT, content=body, headers=JSON)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "application/json", "content-encoding": "identity"},
    ],
)
async def test_other_media_are_refused(shared: httpx.AsyncClient, headers: dict[str, str]) -> None:
    body = json.dumps(chat()).encode()
    response = await shared.post(CHAT, content=body, headers=headers)
    assert_error(response, 415, "unsupported_media_type")


async def test_utf8_may_be_said(shared: httpx.AsyncClient) -> None:
    headers = {"content-type": 'Application/JSON; charset="UTF-8"'}
    response = await shared.post(CHAT, content=json.dumps(chat()).encode(), headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_large_body_is_refused(shared: httpx.AsyncClient, is_announced: bool) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 2**16
            yield b" " * 2**16

    headers = {**JSON, "content-length": str(2**22)} if is_announced else JSON
    response = await shared.post(CHAT, content=chunks(), headers=headers)
    assert_error(response, 413, "body_too_large")
    assert sent <= 2**20 + 2**17, "read on after the limit"


async def test_a_body_that_does_not_come_ends(app: Any) -> None:
    services = app.state.services
    limits = replace(services.limits, body_timeout_seconds=0.05)
    app.state.services = replace(services, limits=limits)

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    messages: list[Any] = []
    body = never()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": await anext(body), "more_body": True}

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": CHAT,
        "raw_path": CHAT.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }
    await app(scope, receive, send)
    assert messages[0]["status"] == 408
    assert json.loads(messages[1]["body"])["error"]["code"] == "request_timeout"


@pytest.mark.parametrize(
    "headers",
    [[("x-long", "x" * 70_000)], [(f"x-{index}", "1") for index in range(300)]],
    ids=["70 KB", "300 lines"],
)
async def test_large_heads_are_refused(
    shared: httpx.AsyncClient, headers: list[tuple[str, str]]
) -> None:
    assert_error(await shared.get("/v1/models", headers=headers), 431, "headers_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/v1/embeddings", 404, "not_found"),
        ("GET", "/v1/chat/completions/", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("PATCH", "/v1/steering/profiles/x", 405, "method_not_allowed"),
    ],
)
async def test_unknown_paths_and_methods_have_the_error_body(
    shared: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    response = await shared.request(method, path)
    assert_error(response, status, code)
    if status == 405:
        assert response.headers["allow"]


async def test_a_wrong_method_is_told_every_right_one(
    shared_app: FastAPI, shared: httpx.AsyncClient
) -> None:
    methods: dict[str, set[str]] = {}
    for route in list_routes(shared_app):
        methods.setdefault(route.path, set()).add(route.method)
    assert methods["/v1/steering/profiles"] == {"GET", "POST"}
    for path, right in methods.items():
        for wrong in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"} - right:
            response = await shared.request(wrong, path.replace(":path}", "}"))
            assert response.status_code == 405, (wrong, path)
            assert set(response.headers["allow"].split(", ")) == right, (wrong, path)


@pytest.mark.parametrize(
    ("url", "status", "code", "param"),
    [
        ("/v1/models/" + "x" * 8200, 414, "url_too_long", None),
        ("/nowhere?cursor=" + "x" * 60_000, 414, "url_too_long", None),
        ("/v1/models/" + "x" * 8000, 404, "model_not_found", "model"),
    ],
    ids=["path", "query", "at the limit"],
)
async def test_a_long_url_is_refused(
    shared: httpx.AsyncClient,
    logs: list[Any],
    url: str,
    status: int,
    code: str,
    param: str | None,
) -> None:
    assert_error(await shared.get(url), status, code, param)
    assert [len(entry["path"]) for entry in logs] == [min(len(url.partition("?")[0]), 256)]


_NO_TEXT = ("%00", "a%00b", "%01", "%0a", "%1b[0m", "%7F", "%c2%85", "%ff", "%C3", "%ed%a0%80")


@pytest.mark.parametrize("text", _NO_TEXT)
async def test_a_url_that_is_no_text_reaches_no_route(
    shared_app: FastAPI, shared: httpx.AsyncClient, text: str
) -> None:
    """In every parameter of every path, and in every query; PostgreSQL takes none of it."""
    for route in list_routes(shared_app):
        urls = {f"{route.path}?limit=2&status={text}": "status", f"{route.path}?{text}=1": None}
        if "{" in route.path:
            urls[re.sub(r"\{.*?\}", text, route.path)] = "path"
        for url, param in urls.items():
            error = (await shared.request(route.method, url)).json()["error"]
            assert error["code"] == "invalid_url", url
            assert error["param"] == param or (param is None and error["param"].isprintable())


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "", "[::2]"])
async def test_a_strange_host_is_refused(shared: httpx.AsyncClient, host: str) -> None:
    assert_error(await shared.get("/v1/models", headers={"host": host}), 400, "invalid_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]:8000"])
async def test_a_local_host_is_served(shared: httpx.AsyncClient, host: str) -> None:
    assert (await shared.get("/v1/models", headers={"host": host})).status_code == 200


async def test_a_request_id_is_taken_over_only_if_it_is_harmless(
    shared: httpx.AsyncClient,
) -> None:
    for given, is_kept in (
        ("trace-1.a_B", True),
        ("a\tb", False),
        ("x" * 65, False),
        ("<a>", False),
    ):
        response = await shared.get("/health", headers={"x-request-id": given})
        assert (response.headers["x-request-id"] == given) is is_kept


async def test_a_message_never_repeats_what_was_sent(shared: httpx.AsyncClient) -> None:
    secret = "s3cret-of-the-user"
    for fields in ({"temperature": secret}, {"stop": {secret: 1}}, {"tools": [secret]}):
        response = await shared.post(CHAT, json=chat(secret, **fields))
        assert response.status_code == 400
        assert secret not in response.text


def assert_error(
    response: httpx.Response, status: int, code: str, param: str | None = None
) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(response.json()) == {"error"}
    assert (error["code"], error["param"]) == (code, param), error
    assert error["type"]
    assert 0 < len(error["message"]) <= 1000
    assert response.headers["x-request-id"]
