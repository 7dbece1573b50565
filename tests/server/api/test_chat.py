from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.store import Store

from .conftest import chat, create_cheerful
from .echo_engine import EchoEngine


async def test_an_unsteered_answer_has_the_openai_shape(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/chat/completions", json=chat("hi"))
    assert response.status_code == 200
    body = response.json()
    assert body["id"].startswith("chatcmpl-")
    assert body["object"] == "chat.completion"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "hi", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ]
    prompt = len("<user\nhi>\n<assistant\n")
    assert body["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": 3,
        "total_tokens": prompt + 3,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert body["steering"] == {
        "profile": None,
        "version": None,
        "fingerprint": None,
        "applied": [],
        "dose": None,
        "warnings": [],
        "steered_tokens": {"prompt": 0, "generated": 0},
        "monitors": {},
    }
    assert response.headers["x-steering-applied"] == "none"
    assert len(response.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"steering": {"profile": "cheerful"}}, {}),
        ({"steering": {"profile": "cheerful@1"}}, {}),
        ({"model": "echo:cheerful"}, {}),
        ({"model": "echo:cheerful@1"}, {}),
        ({}, {"X-Steering-Profile": "cheerful"}),
        ({"vllm_xargs": {"steering": '{"profile": "cheerful"}'}}, {}),
        ({"model": "echo:cheerful", "steering": {"profile": "cheerful@1"}}, {}),
    ],
)
async def test_a_profile_is_chosen_in_every_way(
    client: httpx.AsyncClient, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    await create_cheerful(client)
    response = await client.post(
        "/v1/chat/completions", json={**chat("hi"), **fields}, headers=headers
    )
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["choices"][0]["message"]["content"] == "HI"
    steering = body["steering"]
    assert (steering["profile"], steering["version"]) == ("cheerful", 1)
    assert steering["applied"] == [
        {
            "path": "steering.profile.interventions[0]",
            "operation": "add",
            "direction": "cheer@1",
            "layers": [1],
            "site": "resid_post",
            "strength": 2.0,
            "unit": "raw",
            "scope": {"tokens": "all"},
            "rank": steering["applied"][0]["rank"],
        }
    ]
    assert steering["steered_tokens"] == {
        "prompt": body["usage"]["prompt_tokens"],
        "generated": body["usage"]["completion_tokens"] - 1,
    }
    assert response.headers["x-steering-applied"] == "cheerful@1"


async def test_comparing_puts_the_unsteered_choices_beside_the_steered(
    client: httpx.AsyncClient,
) -> None:
    await create_cheerful(client)
    body = chat("hi", n=2, steering={"profile": "cheerful", "compare": True})
    answer = (await client.post("/v1/chat/completions", json=body)).json()
    assert [c["message"]["content"] for c in answer["choices"]] == ["HI", "HI #1"]
    baseline = answer["steering"]["baseline"]["choices"]
    assert [c["message"]["content"] for c in baseline] == ["hi", "hi #1"]
    assert answer["usage"]["completion_tokens"] == len("hi") + 1 + len("hi #1") + 1


async def test_strength_scales_the_profile_and_not_inline_interventions(
    client: httpx.AsyncClient,
) -> None:
    await create_cheerful(client)
    inline = {"operation": "add", "direction": "cheer", "strength": 5.0}
    steering = {"profile": "cheerful", "strength": 0.5, "interventions": [inline]}
    response = await client.post("/v1/chat/completions", json=chat(steering=steering))
    applied = response.json()["steering"]["applied"]
    assert [item["strength"] for item in applied] == [1.0, 5.0]
    assert response.headers["x-steering-applied"] == "cheerful@1+inline"


async def test_the_boundary_of_the_prompt_moves_for_scored_text(
    client: httpx.AsyncClient,
) -> None:
    await create_cheerful(client)
    item = {"operation": "add", "direction": "cheer", "scope": {"tokens": "generated"}}
    body = {"model": "echo", "prompt": ["abcd", "abcdef"], "max_tokens": 0, "echo": True}
    for boundary, steered in ((1, 3 + 5), ([2, 4], 2 + 2)):
        steering = {"interventions": [item], "prompt_tokens": boundary}
        fields = {**body, "logprobs": 1, "steering": steering}
        response = await client.post("/v1/completions", json=fields)
        assert response.status_code == 200, response.text
        assert response.json()["steering"]["steered_tokens"]["prompt"] == steered
    steering = {"interventions": [item], "prompt_tokens": [1, 1, 1]}
    response = await client.post("/v1/completions", json={**body, "steering": steering})
    assert response.json()["error"]["param"] == "steering.prompt_tokens"
    refused = await client.post(
        "/v1/completions", json={**body, "logprobs": 1, "steering": {"interventions": [item]}}
    )
    assert refused.json()["error"]["code"] == "steering_no_effect"


async def test_monitors_are_read_out_by_direction(client: httpx.AsyncClient) -> None:
    await create_cheerful(client)
    steering = {"monitors": [{"direction": "cheer", "layer": 2}]}
    response = await client.post("/v1/chat/completions", json=chat("hi", steering=steering))
    [reading] = response.json()["steering"]["monitors"]["cheer@1"]
    assert (reading["index"], reading["layer"], reading["site"]) == (0, 2, "resid_post")
    assert len(reading["positions"]) == len(reading["scores"]) == 3


async def test_logprobs_have_the_chat_shape(client: httpx.AsyncClient) -> None:
    body = chat("ab", logprobs=True, top_logprobs=2)
    answer = (await client.post("/v1/chat/completions", json=body)).json()
    entries = answer["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in entries] == ["a", "b", "<|im_end|>"]
    assert entries[0]["bytes"] == [97]
    assert [top["token"] for top in entries[1]["top_logprobs"]] == ["b", "c"]


async def test_the_answer_of_a_hook_that_did_nothing_is_withheld(
    client: httpx.AsyncClient, engine: EchoEngine
) -> None:
    await create_cheerful(client)
    engine.faults.forgets_steering = True
    response = await client.post("/v1/chat/completions", json=chat(model="echo:cheerful"))
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "steering_not_applied"
    metrics = (await client.get("/metrics")).text
    assert "coxswain_not_applied_total 1.0" in metrics


async def test_the_caller_continues_the_last_turn(
    client: httpx.AsyncClient, engine: EchoEngine, store: Store
) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Well"}]
    body = {
        "model": "echo",
        "messages": messages,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }
    response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    assert engine.tokenizer.decode(engine.requests[0].prompt_token_ids).endswith("assistant\nWell")


CONTEXT = EchoEngine().info().max_model_len


def body_of(route: str, num_tokens: int) -> dict[str, Any]:
    """A prompt of so many tokens, each a byte, as the route takes it."""
    if route == "completions":
        return {"model": "echo", "prompt": [97] * num_tokens}
    messages = [{"role": "user", "content": ""}]
    if route == "continued":
        messages.append({"role": "assistant", "content": "Well"})
        end = {"continue_final_message": True, "add_generation_prompt": False}
        around = len("<user\n>\n<assistant\nWell")
    else:
        end, around = {}, len("<user\n>\n<assistant\n")
    messages[0]["content"] = "a" * (num_tokens - around)
    return {"model": "echo", "messages": messages, **end}


@pytest.mark.parametrize("steered", [False, True])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("max_tokens", [None, 1, 2])
@pytest.mark.parametrize("room", [-1, 0, 1, 2])
@pytest.mark.parametrize("route", ["chat", "continued", "completions"])
async def test_a_full_context_is_told_and_never_answered_with_nothing(
    client: httpx.AsyncClient,
    store: Store,
    route: str,
    room: int,
    max_tokens: int | None,
    n: int,
    steered: bool,
) -> None:
    """Whatever fits is answered, with a token where one is wanted; all else is one error."""
    await create_cheerful(client)
    path = "/v1/completions" if route == "completions" else "/v1/chat/completions"
    body = body_of(route, CONTEXT - room) | {"n": n}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    if steered:
        body["steering"] = {"profile": "cheerful"}
    least = 16 if route == "completions" else 1  # without max_tokens
    fits = (least if max_tokens is None else max_tokens) <= room
    for is_stream in (False, True):
        response = await client.post(path, json=body | {"stream": is_stream})
        if not fits:
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (400, "context_length_exceeded")
            prompt = "prompt" if route == "completions" else "messages"
            is_prompts = max_tokens is None or room <= 0
            assert error["param"] == (prompt if is_prompts else "max_tokens") or least == 16
        else:
            assert response.status_code == 200
            if not is_stream:
                usage = response.json()["usage"]
                assert usage["prompt_tokens"] == CONTEXT - room
                assert usage["completion_tokens"] > 0


@pytest.mark.parametrize("room", [-1, 0, 1])
async def test_a_full_context_can_be_scored(client: httpx.AsyncClient, room: int) -> None:
    """Where nothing is to be generated, a prompt may fill all of it."""
    body = body_of("completions", CONTEXT - room)
    body |= {"echo": True, "logprobs": 0, "max_tokens": 0}
    response = await client.post("/v1/completions", json=body)
    if room < 0:
        assert response.json()["error"]["code"] == "context_length_exceeded"
    else:
        tokens = response.json()["choices"][0]["logprobs"]["tokens"]
        assert len(tokens) == CONTEXT - room
