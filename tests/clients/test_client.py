"""Both clients send the same requests and read the same answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from coxswain_client import AsyncCoxswain, Coxswain

from .wire import CHAT, DIRECTION, PROFILE, Wire

_PAGE = {"object": "list", "data": [DIRECTION], "next_cursor": "c2"}
_PROFILES = {"object": "list", "data": [PROFILE]}
_ALIAS = {"alias": "prod", "profile": "cheerful"}
_PLAN: dict[str, Any] = {"is_valid": True, "fingerprint": "f", "interventions": []}
_KEY: dict[str, Any] = {"id": "k1", "name": "lab", "scopes": ["chat"]}
_EVENT: dict[str, Any] = {"sequence": 1, "at": "t", "action": "a", "subject": "s", "detail": {}}
_TEXT = {
    "id": "c",
    "created": 1,
    "model": "tiny",
    "choices": [{"index": 0, "text": " on", "finish_reason": "length"}],
    "usage": CHAT["usage"],
    "steering": CHAT["steering"],
}
_ONE: list[Any] = [{"operation": "ablate", "direction": "refusal"}]

# (what is called, the answer, method, path with query, body)
_CASES: list[tuple[Callable[[Any], Any], dict[str, Any], str, str, Any]] = [
    (
        lambda c: c.chat("Hi", model="tiny", profile="cheerful", strength=0.5, max_tokens=8),
        CHAT,
        "POST",
        "/v1/chat/completions",
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "Hi"}],
            "steering": {"profile": "cheerful", "strength": 0.5},
            "max_tokens": 8,
        },
    ),
    (
        lambda c: c.chat([{"role": "user", "content": "Hi"}], model="tiny"),
        CHAT,
        "POST",
        "/v1/chat/completions",
        {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]},
    ),
    (
        lambda c: c.chat(
            "Hi", model="tiny", interventions=_ONE, steering={"compare": True, "profile": "b"}
        ),
        CHAT,
        "POST",
        "/v1/chat/completions",
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "Hi"}],
            "steering": {"compare": True, "profile": "b", "interventions": _ONE},
        },
    ),
    (
        lambda c: c.complete([1, 2], model="tiny", profile="none"),
        _TEXT,
        "POST",
        "/v1/completions",
        {"model": "tiny", "prompt": [1, 2], "steering": {"profile": "none"}},
    ),
    (
        lambda c: c.models(),
        {"data": [{"id": "tiny"}]},
        "GET",
        "/v1/models",
        None,
    ),
    (lambda c: c.capabilities(), {"sites": []}, "GET", "/v1/capabilities", None),
    (
        lambda c: c.directions.create(
            name="cheer", kind="vector", site="resid_post", layers=(2,), tensors={"vector": [1.0]}
        ),
        DIRECTION,
        "POST",
        "/v1/steering/directions",
        {
            "name": "cheer",
            "kind": "vector",
            "site": "resid_post",
            "layers": [2],
            "tensors": {"vector": [1.0]},
        },
    ),
    (
        lambda c: c.directions.create(
            name="cheer", kind="vector", site="resid_post", layers=2, tensors={"vector": [1.0]}
        ),
        DIRECTION,
        "POST",
        "/v1/steering/directions",
        {
            "name": "cheer",
            "kind": "vector",
            "site": "resid_post",
            "layers": 2,
            "tensors": {"vector": [1.0]},
        },
    ),
    (
        lambda c: c.directions.list(limit=5, cursor="a b"),
        _PAGE,
        "GET",
        "/v1/steering/directions?limit=5&cursor=a+b",
        None,
    ),
    (
        lambda c: c.directions.get("cheer@2"),
        DIRECTION,
        "GET",
        "/v1/steering/directions/cheer@2",
        None,
    ),
    (
        lambda c: c.directions.versions("a/../b"),
        _PAGE,
        "GET",
        "/v1/steering/directions/a%2F..%2Fb/versions",
        None,
    ),
    (
        lambda c: c.directions.delete("cheer"),
        {"name": "cheer", "versions": [1, 2]},
        "DELETE",
        "/v1/steering/directions/cheer",
        None,
    ),
    (
        lambda c: c.profiles.create("p", _ONE, publish=True, description="d"),
        PROFILE,
        "POST",
        "/v1/steering/profiles",
        {"name": "p", "interventions": _ONE, "publish": True, "description": "d"},
    ),
    (
        lambda c: c.profiles.validate("p", _ONE),
        _PLAN,
        "POST",
        "/v1/steering/profiles:validate",
        {"name": "p", "interventions": _ONE},
    ),
    (
        lambda c: c.profiles.publish("p@2"),
        PROFILE,
        "POST",
        "/v1/steering/profiles/p@2/publish",
        None,
    ),
    (lambda c: c.profiles.list(), _PROFILES, "GET", "/v1/steering/profiles", None),
    (lambda c: c.profiles.get("p"), PROFILE, "GET", "/v1/steering/profiles/p", None),
    (
        lambda c: c.profiles.versions("p"),
        _PROFILES,
        "GET",
        "/v1/steering/profiles/p/versions",
        None,
    ),
    (
        lambda c: c.profiles.delete("p@1"),
        {"name": "p", "versions": [1]},
        "DELETE",
        "/v1/steering/profiles/p@1",
        None,
    ),
    (lambda c: c.aliases.list(), {"data": [_ALIAS]}, "GET", "/v1/steering/aliases", None),
    (
        lambda c: c.aliases.set("prod", "cheerful@1"),
        _ALIAS,
        "PUT",
        "/v1/steering/aliases/prod",
        {"profile": "cheerful@1"},
    ),
    (lambda c: c.aliases.delete("prod"), {}, "DELETE", "/v1/steering/aliases/prod", None),
    (
        lambda c: c.keys.create("lab", ("chat",), requests_per_minute=5),
        {**_KEY, "secret": "sk-cox-1"},
        "POST",
        "/v1/admin/keys",
        {"name": "lab", "scopes": ["chat"], "requests_per_minute": 5},
    ),
    (lambda c: c.keys.list(limit=1), {"data": [_KEY]}, "GET", "/v1/admin/keys?limit=1", None),
    (lambda c: c.keys.revoke("k1"), _KEY, "DELETE", "/v1/admin/keys/k1", None),
    (
        lambda c: c.audit.list(action="alias.put"),
        {"data": [_EVENT]},
        "GET",
        "/v1/admin/audit?action=alias.put",
        None,
    ),
]


@pytest.mark.parametrize(("ask", "answer", "method", "path", "body"), _CASES)
async def test_both_clients_speak_alike(
    ask: Callable[[Any], Any], answer: dict[str, Any], method: str, path: str, body: Any
) -> None:
    wire, async_wire = Wire(answer), Wire(answer)
    with Coxswain("http://host/", api_key="sk-1", transport=wire) as client:
        plain = ask(client)
    async with AsyncCoxswain("http://host", api_key="sk-1", transport=async_wire) as async_client:
        awaited = await ask(async_client)
    assert plain == awaited
    for request in (*wire.requests, *async_wire.requests):
        assert request.method == method
        assert request.url.raw_path.decode() == path
        assert request.headers["authorization"] == "Bearer sk-1"
        assert (json.loads(request.content) if request.content else None) == body


def test_an_answer_is_read() -> None:
    compared = {**CHAT["steering"], "baseline": {"choices": CHAT["choices"]}}
    answer = Coxswain(transport=Wire({**CHAT, "steering": compared})).chat("Hi", model="tiny")
    assert answer.text == answer.baseline_text == "Gladly!"
    assert answer.steering.profile == "cheerful"
    assert answer.steering.steered_tokens.generated == 2
    assert answer.usage.total_tokens == 5


def test_fields_of_a_newer_server_are_kept() -> None:
    direction = Coxswain(transport=Wire({**DIRECTION, "novel": 1})).directions.get("cheer")
    assert direction.model_dump()["novel"] == 1


def test_an_upload_has_a_file_and_its_metadata() -> None:
    wire = Wire(DIRECTION)
    client = Coxswain(transport=wire)
    client.directions.upload(b"\x00bytes", filename="cheer.safetensors", name="cheer", layers=[2])
    body = wire.requests[0].content
    assert wire.requests[0].headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'filename="cheer.safetensors"' in body
    assert b"\x00bytes" in body
    assert b'{"name": "cheer", "layers": [2]}' in body


def test_tensors_are_given_back_byte_for_byte() -> None:
    wire = Wire(httpx.Response(200, content=b"\x08\x00\xff"))
    assert Coxswain(transport=wire).directions.tensors("cheer@2") == b"\x08\x00\xff"
    assert wire.requests[0].url.path.endswith("/cheer@2/tensors")


@pytest.mark.parametrize(("status", "is_ready"), [(200, True), (503, False)])
def test_not_ready_is_an_answer(status: int, is_ready: bool) -> None:
    wire = Wire(httpx.Response(status))
    assert Coxswain(transport=wire, max_retries=0).is_ready() is is_ready


def test_a_key_is_not_shown() -> None:
    from coxswain_client.sender import Connection

    assert "sk-secret" not in repr(Connection("http://host", "sk-secret"))


def test_no_key_no_header() -> None:
    wire = Wire(CHAT)
    Coxswain(transport=wire).chat("Hi", model="tiny")
    assert "authorization" not in wire.requests[0].headers


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/"])
def test_an_address_of_other_clients_will_do(tail: str) -> None:
    wire = Wire({"object": "capabilities"})
    with Coxswain(f"http://steering.test:81{tail}", transport=wire) as client:
        client.capabilities()
    assert str(wire.requests[0].url) == "http://steering.test:81/v1/capabilities"
