"""Fields of the OpenAI routes with values nobody should send: the right answer to each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from server.app import create_app
from server.settings import Settings

from .conftest import chat, connect

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


class _NotGiven:
    def __repr__(self) -> str:  # an address would name the same test differently in each worker
        return "NOT_GIVEN"


NOT_GIVEN = _NotGiven()


def user(content: Any, role: str = "user", **more: Any) -> list[dict[str, Any]]:
    return [{"role": role, "content": content, **more}]


IMAGE = [{"type": "image_url", "image_url": {"url": "http://169.254.169.254"}}]
MANY = {str(token): 1.0 for token in range(1025)}

# name of the field, bad value, status, code, param (None: the field itself)
CHAT_CASES: list[tuple[str, Any, int, str, str | None]] = [
    ("model", "nope", 404, "model_not_found", None),
    ("model", "../../etc/passwd", 404, "model_not_found", None),
    ("model", "echo:", 404, "model_not_found", None),
    ("model", "x/echo:cheerful", 404, "model_not_found", None),
    ("model", None, 400, "missing_required_parameter", None),
    ("model", 3, 400, "invalid_value", None),
    ("messages", [], 400, "invalid_value", None),
    ("messages", NOT_GIVEN, 400, "missing_required_parameter", None),
    ("messages", "hi", 400, "invalid_value", None),
    ("messages", ["hi"], 400, "invalid_value", "messages[0]"),
    ("messages", user("x", role="hacker"), 400, "invalid_value", "messages[0].role"),
    ("messages", user("x", role="tool"), 400, "invalid_value", "messages[0].role"),
    ("messages", user(5), 400, "invalid_value", "messages[0].content"),
    ("messages", user(None), 400, "missing_required_parameter", "messages[0].content"),
    ("messages", user([]), 400, "invalid_value", "messages[0].content"),
    ("messages", user(IMAGE), 400, "unsupported_parameter", "messages[0].content"),
    ("messages", user("x", name="bob"), 400, "unsupported_parameter", "messages[0].name"),
    ("messages", user("x", colour=1), 400, "unknown_parameter", "messages[0].colour"),
    ("messages", user("x", tool_calls=[1]), 400, "unsupported_parameter", "messages[0].tool_calls"),
    *[
        ("max_tokens", value, 400, "invalid_value", None)
        for value in (0, -1, 2**70, 1.5, "5", True)
    ],
    ("max_tokens", 10**9, 400, "context_length_exceeded", None),
    ("max_completion_tokens", -1, 400, "invalid_value", None),
    *[("temperature", value, 400, "invalid_sampling", None) for value in (-1, 2.1, 1e30)],
    ("temperature", "1", 400, "invalid_value", None),
    *[("top_p", value, 400, "invalid_sampling", None) for value in (0, -0.1, 1.1)],
    ("top_k", -2, 400, "invalid_sampling", None),
    ("top_k", 2.5, 400, "invalid_value", None),
    ("min_p", 2, 400, "invalid_sampling", None),
    *[("n", value, 400, "invalid_value", None) for value in (0, -1, 17, 129, 10**7, True)],
    ("best_of", 2, 400, "unsupported_parameter", None),
    ("logprobs", 1, 400, "invalid_value", None),
    *[("top_logprobs", value, 400, "invalid_value", None) for value in (-1, 21, 1000, 2)],
    *[
        ("stop", value, 400, "invalid_value", None)
        for value in (["x"] * 17, ["x"] * 100_000, "", [""], 5, [5], "x" * 1001, "x" * 10**6)
    ],
    *[
        ("logit_bias", value, 400, "invalid_value", None)
        for value in ("abc", {"abc": 1}, {"258": 1}, {"-1": 1}, {"1.5": 1}, MANY)
    ],
    ("logit_bias", {"1": "x"}, 400, "invalid_value", "logit_bias.1"),
    ("logit_bias", {"1": 1000}, 400, "invalid_sampling", None),
    *[("seed", value, 400, "invalid_value", None) for value in (2**63, 1.5, "a", True)],
    *[
        (f"{kind}_penalty", value, 400, "invalid_sampling", None)
        for kind, value in (("presence", 2.1), ("frequency", -2.1), ("repetition", 0))
    ],
    ("bad_words", ["x"] * 1000, 400, "unsupported_parameter", None),
    ("user", "x" * 10**5, 400, "invalid_value", None),
    ("metadata", {"a": 1}, 400, "invalid_value", "metadata.a"),
    ("stream", "yes", 400, "invalid_value", None),
    ("stream_options", {"include_usage": True}, 400, "invalid_value", None),
    ("chat_template", "{{ 7 * 7 }}" * 9, 400, "invalid_value", None),
    ("chat_template_kwargs", {"messages": [{}]}, 400, "invalid_value", None),
    ("tools", [{"type": "function"}], 400, "unsupported_parameter", None),
    ("tool_choice", "auto", 400, "unsupported_parameter", None),
    ("functions", [{}], 400, "unsupported_parameter", None),
    ("response_format", {"type": "json_object"}, 400, "unsupported_parameter", None),
    ("audio", {}, 400, "unsupported_parameter", None),
    ("modalities", ["audio"], 400, "unsupported_parameter", None),
    ("suffix", "x", 400, "unsupported_parameter", None),
    ("reasoning_effort", "much", 400, "invalid_value", None),
    ("sterring", {"profile": "x"}, 400, "unknown_parameter", None),
    ("prompt", "x", 400, "unknown_parameter", None),
    ("min_tokens", -1, 400, "invalid_value", None),
    ("stop_token_ids", [258], 400, "invalid_value", None),
    ("prompt_logprobs", 21, 400, "invalid_value", None),
    ("continue_final_message", True, 400, "invalid_value", None),
    ("vllm_xargs", {"other": "1"}, 400, "unsupported_parameter", None),
    ("vllm_xargs", {"steering": "{"}, 400, "invalid_json", "vllm_xargs.steering"),
    (
        "vllm_xargs",
        {"steering": '{"interventions": [{}]}'},
        *(400, "invalid_field", "steering.interventions[0].operation"),
    ),
    (
        "vllm_xargs",
        {"steering": '{"interventions": [1]}'},
        *(400, "invalid_value", "vllm_xargs.steering.interventions[0]"),
    ),
]

INLINE = {"operation": "add", "direction": "cheer"}
STEERING_CASES: list[tuple[Any, int, str, str]] = [
    ("cheerful", 400, "invalid_value", "steering"),
    ({"profil": "x"}, 400, "unknown_parameter", "steering.profil"),
    ({"profile": 3}, 400, "invalid_value", "steering.profile"),
    ({"profile": "nope"}, 404, "profile_not_found", "steering.profile"),
    ({"profile": "cheerful@9"}, 404, "profile_not_found", "steering.profile"),
    ({"profile": "NOPE"}, 400, "invalid_field", "steering.profile"),
    ({"profile": "../x"}, 400, "invalid_field", "steering.profile"),
    ({"strength": 0.5}, 400, "invalid_field", "steering.strength"),
    ({"profile": "cheerful", "strength": "1"}, 400, "invalid_value", "steering.strength"),
    ({"interventions": {}}, 400, "invalid_value", "steering.interventions"),
    ({"interventions": [{}]}, 400, "invalid_field", "steering.interventions[0].operation"),
    (
        {"interventions": [{**INLINE, "direction": "nope"}]},
        *(404, "direction_not_found", "steering.interventions[0].direction"),
    ),
    (
        {"interventions": [INLINE, {**INLINE, "layers": [4]}]},
        *(400, "layer_out_of_range", "steering.interventions[1].layers"),
    ),
    (
        {"interventions": [{**INLINE, "site": "resid_mid"}]},
        *(400, "site_unavailable", "steering.interventions[0].site"),
    ),
    (
        {"interventions": [{**INLINE, "site": "nowhere"}]},
        *(400, "unknown_site", "steering.interventions[0].site"),
    ),
    (
        {"interventions": [{**INLINE, "strength": 1e39}]},
        *(400, "norm_too_large", "steering.interventions[0].strength"),
    ),
    (
        {"interventions": [{**INLINE, "operation": "rotate", "angle": 9}]},
        *(400, "incompatible_operation", "steering.interventions[0].direction"),
    ),
    (
        {"interventions": [{**INLINE, "gate": {"probe": "x"}}]},
        *(400, "invalid_field", "steering.interventions[0].gate.probe"),
    ),
    (
        {"interventions": [{**INLINE, "scope": {"windows": [[5000, 5001]]}}]},
        *(400, "steering_no_effect", "steering.interventions[0].scope"),
    ),
    (
        {"monitors": [{"direction": "cheer", "layer": 9}]},
        *(400, "layer_out_of_range", "steering.monitors[0].layer"),
    ),
    ({"compose": "multiply"}, 400, "invalid_value", "steering.compose"),
    ({"compare": True}, 400, "nothing_to_compare", "steering.compare"),
    ({"prompt_tokens": -1}, 400, "invalid_value", "steering.prompt_tokens[0]"),
    (
        {"profile": "cheerful", "prompt_tokens": 9999},
        400,
        "invalid_field",
        "steering.prompt_tokens",
    ),
]

TEXT_CASES: list[tuple[str, Any, int, str, str | None]] = [
    *[
        ("prompt", value, 400, "invalid_value", None)
        for value in ([], [[]], "", 5, [-1], [258], [2**70], [1.5], [True], ["x", 1], [["x"]], [""])
    ],
    ("prompt", NOT_GIVEN, 400, "missing_required_parameter", None),
    ("prompt", ["x"] * 257, 400, "invalid_value", None),
    ("logprobs", True, 400, "invalid_value", None),
    *[("logprobs", value, 400, "invalid_value", None) for value in (-1, 21, 1000)],
    ("max_tokens", 0, 400, "invalid_value", None),
    ("suffix", "x", 400, "unsupported_parameter", None),
    ("best_of", 2, 400, "unsupported_parameter", None),
    ("messages", user("x"), 400, "unknown_parameter", None),
    ("echo", 1, 400, "invalid_value", None),
]


def with_field(body: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    if value is NOT_GIVEN:
        return {name: item for name, item in body.items() if name != field}
    return {**body, field: value}


def case_id(value: Any) -> str:
    return repr(value)[:30]


@pytest.mark.parametrize(("field", "value", "status", "code", "param"), CHAT_CASES, ids=case_id)
async def test_a_bad_chat_field_is_named(
    shared: httpx.AsyncClient, field: str, value: Any, status: int, code: str, param: str | None
) -> None:
    response = await shared.post(CHAT, json=with_field(chat(), field, value))
    check(response, status, code, param or field)


@pytest.mark.parametrize(("field", "value", "status", "code", "param"), TEXT_CASES, ids=case_id)
async def test_a_bad_completion_field_is_named(
    shared: httpx.AsyncClient, field: str, value: Any, status: int, code: str, param: str | None
) -> None:
    response = await shared.post(
        TEXT, json=with_field({"model": "echo", "prompt": "hi"}, field, value)
    )
    check(response, status, code, param or field)


@pytest.mark.parametrize(("steering", "status", "code", "param"), STEERING_CASES, ids=case_id)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_bad_steering_is_named_before_anything_runs(
    shared: httpx.AsyncClient,
    steering: Any,
    status: int,
    code: str,
    param: str,
    is_stream: bool,
) -> None:
    response = await shared.post(CHAT, json=chat(steering=steering, stream=is_stream))
    if is_stream and param == "steering.compare":
        status, code = 400, "unsupported_parameter"
    check(response, status, code, param)


@pytest.fixture
async def defaulting(
    shared_app: FastAPI, shared: httpx.AsyncClient
) -> AsyncIterator[httpx.AsyncClient]:
    """The same with a default profile."""
    services = shared_app.state.services
    settings = Settings(default_profile="cheerful")
    async with connect(create_app(settings, services.engine, services.store)) as http:
        yield http


OWN_CASES = [case for case in STEERING_CASES if case[3].startswith(("steering.i", "steering.m"))]


@pytest.mark.parametrize(("steering", "status", "code", "param"), OWN_CASES, ids=case_id)
@pytest.mark.parametrize("chosen", [{"profile": "cheerful"}, {"compose": "add"}], ids=str)
async def test_a_request_s_own_steering_is_named_the_same_beside_a_profile(
    defaulting: httpx.AsyncClient,
    steering: Any,
    status: int,
    code: str,
    param: str,
    chosen: dict[str, str],
) -> None:
    response = await defaulting.post(CHAT, json=chat(steering={**steering, **chosen}))
    check(response, status, code, param)


async def test_regions_are_named_by_the_scope_that_asks_for_them(
    shared: httpx.AsyncClient,
) -> None:
    own = [INLINE, {**INLINE, "scope": {"regions": ["thinking"]}}]
    body = {"model": "echo:cheerful", "prompt": "hi", "steering": {"interventions": own}}
    response = await shared.post(TEXT, json=body)
    check(response, 400, "invalid_field", "steering.interventions[1].scope")


async def test_an_answer_names_where_each_intervention_was_asked_for(
    defaulting: httpx.AsyncClient,
) -> None:
    steering = {"profile": "cheerful", "compose": "add", "interventions": [INLINE, INLINE]}
    answer = (await defaulting.post(CHAT, json=chat(steering=steering))).json()
    assert [item["path"] for item in answer["steering"]["applied"]] == [
        "default_profile.interventions[0]",
        "steering.profile.interventions[0]",
        "steering.interventions[0]",
        "steering.interventions[1]",
    ]


GOOD: list[dict[str, Any]] = [
    {"max_tokens": None, "temperature": None, "stop": None, "tools": None, "audio": None},
    {"seed": -1},
    {"temperature": 0, "top_k": -1, "n": 3},
    {"stop": ["a"] * 16},
    {"store": True, "service_tier": "auto", "parallel_tool_calls": False, "metadata": {"a": "b"}},
    {"safety_identifier": "x", "prompt_cache_key": "y", "user": "z", "reasoning_effort": None},
    {"best_of": 1, "modalities": ["text"], "response_format": {"type": "text"}, "suffix": None},
    {"logit_bias": {"97": -100}, "max_completion_tokens": 5},
    {"messages": user("{{7*7}} <|im_start|>")},
    {"messages": user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])},
    {"messages": user("be kind", role="developer") + user("hi")},
    {"steering": None},
    {"steering": {}},
    {"steering": {"profile": "none"}},
    {"model": "echo:none"},
]


@pytest.mark.parametrize("fields", GOOD, ids=case_id)
async def test_fields_that_ask_for_nothing_odd_are_accepted(
    shared: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    response = await shared.post(CHAT, json={**chat("hi"), **fields})
    assert response.status_code == 200, response.text


async def test_text_of_users_never_becomes_a_special_token(shared: httpx.AsyncClient) -> None:
    answer = await shared.post(CHAT, json=chat("<|im_end|>{{7*7}}"))
    assert answer.json()["choices"][0]["message"]["content"] == "<|im_end|>{{7*7}}"


async def test_scoring_generates_nothing(shared: httpx.AsyncClient) -> None:
    body = {"model": "echo", "prompt": "hi", "echo": True, "max_tokens": 0, "logprobs": 1}
    answer = (await shared.post(TEXT, json=body)).json()
    assert answer["usage"]["completion_tokens"] == 0
    assert answer["choices"][0]["text"] == "hi"
    assert answer["choices"][0]["finish_reason"] == "length"


def check(response: httpx.Response, status: int, code: str, param: str) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, None if param == "*" else param), error
    assert error["type"] == "invalid_request_error"
    assert len(response.content) < 2000
