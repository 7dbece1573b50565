"""Thoughts beside the answer, in it or left out; and what a chat asks of its template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from server.app import create_app
from server.settings import Settings
from server.store import Store

from .conftest import chat, connect
from .echo_engine import EchoEngine
from .test_streams import read

CHAT = "/v1/chat/completions"
SAID = "a<think>b c</think>d"
PARSED = {"content": "ad", "reasoning_content": "b c", "reasoning": "b c"}
RAW, HIDDEN = {"content": SAID}, {"content": "ad"}
FORMATS = pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({}, PARSED),
        ({"reasoning_format": "parsed"}, PARSED),
        ({"include_reasoning": True}, PARSED),
        ({"reasoning_format": "raw"}, RAW),
        ({"reasoning_format": "hidden"}, HIDDEN),
        ({"include_reasoning": False}, HIDDEN),
        ({"include_reasoning": False, "reasoning_format": "hidden"}, HIDDEN),
    ],
    ids=str,
)


async def joined(client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[dict[str, str], Any]:
    """The deltas of a streamed chat put together, and its last chunk."""
    *chunks, _ = await read(client, CHAT, body)
    message: dict[str, str] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            for name, text in choice["delta"].items():
                message[name] = message.get(name, "") + text
    return message, chunks[-1]


@FORMATS
async def test_a_thought_goes_where_the_chat_says(
    client: httpx.AsyncClient, fields: dict[str, Any], written: dict[str, str]
) -> None:
    body = chat(SAID, **fields)
    answer = (await client.post(CHAT, json=body)).json()
    whole = {"role": "assistant", **written}
    assert answer["choices"][0]["message"] == {**whole, "refusal": None}
    assert answer["usage"]["completion_tokens"] == len(SAID) + 1
    thought = len("<think>b c</think>")
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": thought}
    message, last = await joined(client, {**body, "stream_options": {"include_usage": True}})
    assert message == whole
    assert last["usage"] == answer["usage"]


async def test_a_thought_that_the_prompt_opened_or_the_limit_cut(client: httpx.AsyncClient) -> None:
    body = chat("b c</think>d", chat_template_kwargs={"thinking": True})
    message = (await client.post(CHAT, json=body)).json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("b c", "d")
    cut = (await client.post(CHAT, json=chat(SAID, max_tokens=10))).json()
    assert cut["choices"][0]["finish_reason"] == "length"
    message = cut["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("b ", "a")
    assert cut["usage"]["completion_tokens_details"] == {"reasoning_tokens": 9}


@pytest.mark.parametrize(
    ("stop", "thought", "answer"),
    [("c", "b ", "a"), ("</think>", "b c", "a"), ("c</think>d", "b ", "a"), ("zz", "b c", "ad")],
)
async def test_stop_strings_end_a_thought_too(
    client: httpx.AsyncClient, stop: str, thought: str, answer: str
) -> None:
    body = chat(SAID, stop=stop)
    written = (await client.post(CHAT, json=body)).json()["choices"][0]["message"]
    assert (written["reasoning_content"], written["content"]) == (thought, answer)
    message, _ = await joined(client, body)
    assert message == {name: text for name, text in written.items() if name != "refusal"}


async def test_every_token_keeps_its_log_probability(client: httpx.AsyncClient) -> None:
    body = chat(SAID, logprobs=True, return_token_ids=True, reasoning_format="hidden")
    choice = (await client.post(CHAT, json=body)).json()["choices"][0]
    assert "".join(e["token"] for e in choice["logprobs"]["content"]).startswith(SAID)
    assert len(choice["logprobs"]["content"]) == len(choice["token_ids"])
    *chunks, _ = await read(client, CHAT, body)
    entries = [c["choices"][0] for c in chunks if c["choices"][0]["logprobs"]]
    assert [len(e["token_ids"]) for e in entries] == [1] * len(choice["token_ids"])
    assert [e["logprobs"]["content"][0] for e in entries] == choice["logprobs"]["content"]


async def test_an_answer_of_a_model_without_thoughts_is_as_it_was(
    client: httpx.AsyncClient,
) -> None:
    answer = (await client.post(CHAT, json=chat("hi", reasoning_format="hidden"))).json()
    assert answer["choices"][0]["message"] == {
        "role": "assistant",
        "content": "hi",
        "refusal": None,
    }
    assert "completion_tokens_details" not in answer["usage"]
    assert "chat_template" not in answer


@pytest.mark.parametrize(
    ("name", "written"), [("parsed", PARSED), ("raw", RAW), ("hidden", HIDDEN)]
)
async def test_the_server_has_a_format_for_chats_that_do_not_say(
    tmp_path: Path, store: Store, name: str, written: dict[str, str]
) -> None:
    settings = Settings(data_dir=tmp_path / "other", reasoning_format=name)
    app = create_app(settings, EchoEngine(), store)  # type: ignore[arg-type]
    async with connect(app) as client:
        message = (await client.post(CHAT, json=chat(SAID))).json()["choices"][0]["message"]
    assert message == {"role": "assistant", **written, "refusal": None}


async def test_an_answer_says_what_became_of_the_templates_options(
    client: httpx.AsyncClient,
) -> None:
    body = chat("x", chat_template="other", chat_template_kwargs={"a": 1, "b": "c", "d": None})
    wanted = {
        "name": "other",
        "variables": {"a": 1, "b": "c", "d": None},
        "merged_system": False,
        "not_applied": [],
    }
    assert (await client.post(CHAT, json=body)).json()["chat_template"] == wanted
    *chunks, _ = await read(client, CHAT, body)
    assert [c.get("chat_template") for c in chunks] == [None] * (len(chunks) - 1) + [wanted]


async def test_a_chat_is_tokenized_and_analysed_under_the_same_options(
    client: httpx.AsyncClient,
) -> None:
    messages = [{"role": "user", "content": "x"}]
    body = {"messages": messages, "chat_template_kwargs": {"thinking": True}}
    assert (await client.post("/v1/tokenize", json=body)).status_code == 200
    for path in ("/v1/tokenize", "/v1/steering/analyze/score"):
        for name, value in (("chat_template", "x"), ("chat_template_kwargs", {"a": 1})):
            response = await client.post(path, json={"prompt": "x", name: value})
            assert response.status_code == 400
            assert response.json()["error"]["param"] == name
            assert "send messages" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"chat_template": "x" * 65}, "chat_template"),
        ({"chat_template": {"a": "b"}}, "chat_template"),
        ({"chat_template_kwargs": {"a": [1]}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": "x" * 1001}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": 1_000_001}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a" * 65: 1}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": dict.fromkeys("abcdefghijklmnopq", 1)}, "chat_template_kwargs"),
        ({"chat_template_kwargs": "a"}, "chat_template_kwargs"),
        ({"reasoning_effort": "much"}, "reasoning_effort"),
        ({"reasoning_format": "none"}, "reasoning_format"),
        ({"include_reasoning": False, "reasoning_format": "raw"}, "include_reasoning"),
    ],
)
async def test_what_a_template_cannot_be_asked_is_refused(
    client: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    response = await client.post(CHAT, json=chat(**fields))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("turn", "status"),
    [
        ({"role": "assistant", "content": "y", "reasoning_content": "z"}, 200),
        ({"role": "assistant", "content": "y", "reasoning": "z"}, 200),
        ({"role": "assistant", "content": "y", "reasoning": "z", "reasoning_content": "z"}, 200),
        ({"role": "assistant", "content": "y", "reasoning": None, "reasoning_content": ""}, 200),
        ({"role": "assistant", "content": "y", "reasoning": "z", "reasoning_content": "q"}, 400),
        ({"role": "user", "content": "y", "reasoning_content": "z"}, 400),
        ({"role": "assistant", "content": "y", "reasoning_content": ["z"]}, 400),
    ],
)
async def test_thoughts_are_sent_back_by_assistants(
    client: httpx.AsyncClient, turn: dict[str, Any], status: int
) -> None:
    messages = [{"role": "user", "content": "x"}, turn, {"role": "user", "content": "x"}]
    response = await client.post(CHAT, json={"model": "echo", "messages": messages})
    assert response.status_code == status
    if status == 400:
        assert response.json()["error"]["param"].startswith("messages[1]")
