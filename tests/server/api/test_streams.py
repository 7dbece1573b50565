"""The shapes of streams, chunk by chunk."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import httpx
import pytest

from server.engine.errors import GenerationError, NonFiniteOutputError, QueueFullError
from server.engine.outputs import FinishReason

from .byte_tokenizer import END
from .conftest import chat, create_cheerful
from .echo_engine import EchoEngine

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


async def read(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> list[Any]:
    """The data of each event of a stream."""
    response = await client.post(path, json={**body, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers
    return events(response.text)


def events(text: str) -> list[Any]:
    assert text.endswith("\n\n")
    found = []
    for event in text.removesuffix("\n\n").split("\n\n"):
        assert event.startswith("data: "), event
        data = event.removeprefix("data: ")
        found.append(data if data == "[DONE]" else json.loads(data))
    return found


async def test_a_chat_stream_is_role_content_finish_done(client: httpx.AsyncClient) -> None:
    *chunks, done = await read(client, CHAT, chat("hi"))
    assert done == "[DONE]"
    heads = {tuple(c[k] for k in ("id", "object", "created", "model")) for c in chunks}
    assert len(heads) == 1
    assert chunks[0]["object"] == "chat.completion.chunk"
    assert len({c["system_fingerprint"] for c in chunks}) == 1
    choices = [chunk["choices"] for chunk in chunks]
    plain = {"index": 0, "logprobs": None, "finish_reason": None}
    assert choices == [
        [{**plain, "delta": {"role": "assistant", "content": ""}}],
        [{**plain, "delta": {"content": "h"}}],
        [{**plain, "delta": {"content": "i"}}],
        [{**plain, "delta": {}, "finish_reason": "stop", "stop_reason": None}],
    ]
    assert ["steering" in chunk for chunk in chunks] == [False, False, False, True]
    assert all("usage" not in chunk for chunk in chunks)


async def test_usage_comes_in_a_chunk_of_its_own_with_the_steering(
    client: httpx.AsyncClient,
) -> None:
    await create_cheerful(client)
    body = chat("hi", model="echo:cheerful", stream_options={"include_usage": True})
    *chunks, usage, done = await read(client, CHAT, body)
    assert done == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 3
    assert usage["steering"]["profile"] == "cheerful"
    assert usage["steering"]["steered_tokens"]["generated"] == 2
    assert all("steering" not in chunk for chunk in chunks)


async def test_usage_can_come_with_every_chunk(client: httpx.AsyncClient) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, _ = await read(client, CHAT, chat("hi", stream_options=options))
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == [1, 1, 2, 3, 3]


async def test_choices_begin_each_with_a_role_and_end_each_once(
    client: httpx.AsyncClient,
) -> None:
    *chunks, _ = await read(client, CHAT, chat("hi", n=3))
    texts, roles, finishes = ["", "", ""], [0, 0, 0], [0, 0, 0]
    for chunk in chunks:
        [choice] = chunk["choices"]
        index = choice["index"]
        assert finishes[index] == 0
        roles[index] += "role" in choice["delta"]
        assert roles[index] == 1, "content before the role"
        texts[index] += choice["delta"].get("content", "")
        finishes[index] += choice["finish_reason"] is not None
    assert texts == ["hi", "hi #1", "hi #2"]
    assert finishes == [1, 1, 1]
    assert [("steering" in chunk) for chunk in chunks].index(True) == len(chunks) - 1


async def test_a_character_of_several_tokens_is_sent_whole(client: httpx.AsyncClient) -> None:
    *chunks, _ = await read(client, CHAT, chat("aé😀"))
    contents = [c["choices"][0]["delta"].get("content") for c in chunks]
    assert contents == ["", "a", "é", "😀", None]


async def test_logprobs_stream_with_every_token_even_without_text(
    client: httpx.AsyncClient,
) -> None:
    *chunks, _ = await read(client, CHAT, chat("é", logprobs=True))
    tokens = [
        entry["bytes"]
        for chunk in chunks
        for entry in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert tokens == [[0xC3], [0xA9], []]


async def test_token_ids_stream_with_every_token_even_without_text(
    client: httpx.AsyncClient,
) -> None:
    for path, fields in ((CHAT, chat("é")), (TEXT, {"model": "echo", "prompt": "é"})):
        *chunks, _ = await read(client, path, {**fields, "return_token_ids": True, "stop": "éx"})
        ids = [chunk["choices"][0].get("token_ids") for chunk in chunks]
        assert [i for i in ids if i] == [[0xC3], [0xA9], [END]], path


def joined(first: Any, second: Any) -> Any:
    """What two pieces of one answer come to: texts, lists and members put together."""
    if first is None or second is None:
        return first if second is None else second
    if isinstance(first, dict):
        return {k: joined(first.get(k), second.get(k)) for k in [*first, *second]}
    assert isinstance(first, str | list), f"{first} and {second} cannot both be told"
    return first + second


def whole(chunks: list[Any]) -> dict[str, Any]:
    """The answer that the chunks of a stream add up to."""
    answer: dict[str, Any] = {"choices": {}}
    for chunk in chunks:
        for choice in chunk.pop("choices"):
            index, known = choice.pop("index"), answer["choices"]
            if "delta" in choice:
                choice["message"] = choice.pop("delta")
            known[index] = joined(known.get(index), choice)
        answer |= {name: value for name, value in chunk.items() if value is not None}
    answer["choices"] = [{"index": i, **c} for i, c in sorted(answer["choices"].items())]
    return answer


def random_request(rng: random.Random) -> tuple[str, dict[str, Any]]:
    def text() -> str:
        return "".join(rng.choices(["a", "b", "é", "😀", " ", "#"], k=rng.randint(1, 9)))

    is_chat, said = rng.random() < 0.5, text()
    start = rng.randrange(len(said))
    stops = [said[start : start + rng.randint(1, 4)], said[start:] + "!", text()]
    body: dict[str, Any] = {
        "n": rng.randint(1, 3),
        "stop": rng.sample(stops, rng.randint(0, 3)),
        "return_token_ids": rng.random() < 0.7,
        "max_tokens": rng.randint(1, 24),
        "model": rng.choice(["echo", "echo:cheerful"]),
        "stop_token_ids": rng.choice([[], [ord("b")], [0xA9]]),
        "steering": rng.choice(
            [None, {"monitors": [{"direction": "cheer", "layer": 1, "site": "resid_post"}]}]
        ),
    }
    has_logprobs = rng.random() < 0.5
    if is_chat:
        body |= {"logprobs": has_logprobs, "top_logprobs": rng.randint(0, 3)}
        body = chat(said, **body) if has_logprobs else chat(said, **body | {"top_logprobs": None})
        return CHAT, body
    prompts = [said, text()] if rng.random() < 0.5 else [list(said.encode())]
    body |= {"prompt": prompts, "echo": rng.random() < 0.5}
    return TEXT, body | {"logprobs": rng.randint(0, 3) if has_logprobs else None}


@pytest.mark.parametrize("seed", range(40))
async def test_a_stream_adds_up_to_the_answer_that_comes_whole(
    shared: httpx.AsyncClient, seed: int
) -> None:
    rng = random.Random(seed)
    for _ in range(5):
        path, body = random_request(rng)
        response = await shared.post(path, json=body)
        assert response.status_code == 200, response.text
        expected = response.json()
        options = {
            "include_usage": rng.random() < 0.5,
            "continuous_usage_stats": rng.random() < 0.3,
        }
        *chunks, done = await read(shared, path, {**body, "stream_options": options})
        assert done == "[DONE]"
        streamed = whole(chunks)
        for answer in (expected, streamed):
            for name in ("id", "created", "object"):
                del answer[name]
        if not any(options.values()):
            del expected["usage"]
        for choice in expected["choices"]:
            if path == CHAT:
                del choice["message"]["refusal"]
        assert streamed == expected, body


async def test_a_completion_stream_is_text_finish_done(client: httpx.AsyncClient) -> None:
    body = {"model": "echo", "prompt": ["ab", "c"], "n": 2, "echo": True, "max_tokens": 8}
    *chunks, done = await read(client, TEXT, body)
    assert done == "[DONE]"
    texts = {0: "", 1: "", 2: "", 3: ""}
    for chunk in chunks:
        assert chunk["object"] == "text_completion"
        [choice] = chunk["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == {0: "abab", 1: "abab #1", 2: "cc", 3: "cc #1"}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (QueueFullError("full"), 429, "rate_limit_exceeded"),
        (NonFiniteOutputError("NaN", is_steered=True), 422, "steering_nonfinite"),
        (NonFiniteOutputError("NaN", is_steered=False), 500, "engine_nonfinite"),
        (GenerationError("it broke"), 500, "engine_request_failed"),
        (RuntimeError("secret"), 500, "server_error"),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_fault_before_the_first_token_keeps_its_status(
    client: httpx.AsyncClient,
    engine: EchoEngine,
    error: Exception,
    status: int,
    code: str,
    is_stream: bool,
) -> None:
    engine.faults.errors[0] = error
    response = await client.post(CHAT, json=chat(stream=is_stream))
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert "secret" not in response.text
    if status == 429:
        assert int(response.headers["retry-after"]) >= 1


async def test_a_fault_after_the_first_token_is_one_event_and_no_done(
    client: httpx.AsyncClient, engine: EchoEngine
) -> None:
    engine.faults.errors[2] = NonFiniteOutputError("NaN", is_steered=True)
    chunks = await read(client, CHAT, chat("hello"))
    assert "[DONE]" not in chunks
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks[:-1]] == ["", "h", "e"]
    assert chunks[-1]["error"]["code"] == "steering_nonfinite"
    metrics = (await client.get("/metrics")).text
    assert 'coxswain_nonfinite_total{profile="none"} 1.0' in metrics


async def test_one_failing_choice_ends_the_others(
    client: httpx.AsyncClient, engine: EchoEngine
) -> None:
    engine.faults.errors[1] = GenerationError("it broke")
    engine.faults.only_choice = 1
    response = await client.post(CHAT, json=chat("hello", n=3))
    assert response.status_code == 500
    assert not engine.running


async def test_a_failing_request_leaves_those_beside_it_alone(
    client: httpx.AsyncClient, engine: EchoEngine
) -> None:
    engine.faults.errors[2] = RuntimeError("a fault of one request")
    engine.faults.only_text = "unlucky"
    texts = ("first", "unlucky", "third")
    bodies = [chat(text, stream=bool(i % 2)) for i, text in enumerate(texts * 4)]
    answers = await asyncio.gather(*(client.post(CHAT, json=body) for body in bodies))
    for body, answer in zip(bodies, answers, strict=True):
        text = body["messages"][0]["content"]
        is_whole = "[DONE]" in answer.text or '"chat.completion"' in answer.text
        assert is_whole is (text != "unlucky"), answer.text
    assert not engine.running


def test_finish_reasons_are_those_clients_know() -> None:
    assert {reason.value for reason in FinishReason} <= {"stop", "length"}
