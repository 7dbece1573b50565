"""Requests that harnesses and benchmarks were recorded to send, and what they read of answers."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from .conftest import Served


@pytest.fixture
def http(served: Served) -> Any:
    with httpx.Client(base_url=served.url) as client:
        yield client


def test_lm_eval_loglikelihood(http: httpx.Client) -> None:
    """`local-completions`: token-id prompts, echo, one log-probability, one token."""
    contexts, continuations = [b"the sky is", b"a"], [b" blue", b"bc"]
    prompts = [list(a + b) for a, b in zip(contexts, continuations, strict=True)]
    body = {
        "model": "echo",
        "prompt": prompts,
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": 1,
        "seed": 1234,
        "echo": True,
    }
    answer = http.post("/v1/completions", json=body).json()
    choices = sorted(answer["choices"], key=lambda choice: choice["index"])
    assert len(choices) == 2
    for choice, prompt, context in zip(choices, prompts, contexts, strict=True):
        logprobs, size = choice["logprobs"], len(context)
        assert len(logprobs["token_logprobs"]) == len(prompt) + 1
        assert logprobs["token_logprobs"][0] is None
        assert logprobs["top_logprobs"][0] is None
        assert choice["text"].startswith(bytes(prompt).decode())
        assert logprobs["tokens"][: len(prompt)] == [chr(token) for token in prompt]
        assert logprobs["text_offset"] == list(range(len(prompt) + 1))
        tokens = logprobs["token_logprobs"][size:-1]
        tops = logprobs["top_logprobs"][size:-1]
        assert len(tokens) == len(prompt) - size
        for token_id, value, top in zip(prompt[size:], tokens, tops, strict=True):
            # is_greedy is exact equality; the chosen token is there even where it is not the top
            assert chr(token_id) in top
            assert (value == max(top.values())) is (token_id % 2 == 0)


def test_lm_eval_generation(http: httpx.Client) -> None:
    body = {
        "model": "echo",
        "prompt": [list(b"question: x\nanswer")],
        "max_tokens": 64,
        "temperature": 0,
        "seed": 1234,
        "stop": ["\n", "<|im_end|>"],
    }
    answer = http.post("/v1/completions", json=body).json()
    assert answer["choices"][0]["text"] == "question: x"
    info = http.get("/tokenizer_info").json()
    assert info["eos_token"] == "<|im_end|>"
    tokens = http.post("/tokenize", json={"prompt": "ab", "model": "echo"}).json()["tokens"]
    assert tokens == [97, 98]


def test_lm_eval_chat(http: httpx.Client) -> None:
    body = {
        "model": "echo",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 64,
        "temperature": 0,
        "stop": ["a", "b", "c", "d"],
        "seed": 1234,
    }
    answer = http.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"] == "hello"


def test_inspect(http: httpx.Client) -> None:
    body = {
        "model": "echo",
        "messages": [{"role": "user", "content": "hi"}],
        "logprobs": True,
        "top_logprobs": 2,
        "prompt_logprobs": 1,
        "seed": 7,
        "max_tokens": 8,
        "steering": {"profile": "cheerful"},
    }
    answer = http.post("/v1/chat/completions", json=body).json()
    assert answer["prompt_logprobs"][0] is None
    first = answer["prompt_logprobs"][1]
    assert all({"logprob", "rank", "decoded_token"} == set(entry) for entry in first.values())
    models = http.get("/v1/models").json()["data"]
    assert all(model["max_model_len"] == 2048 for model in models)


def test_guidellm(http: httpx.Client) -> None:
    assert http.get("/health").status_code == 200
    body = {
        "model": "echo",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        "max_completion_tokens": 12,
        "stop": None,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    *chunks, done = events(http, "/v1/chat/completions", body)
    assert done == "[DONE]"
    assert all(chunk["usage"]["prompt_tokens"] > 0 for chunk in chunks)
    assert chunks[-1]["usage"]["completion_tokens"] == 12
    assert chunks[-1]["choices"] == []


def test_vllm_bench_serve(http: httpx.Client) -> None:
    body = {
        "model": "echo",
        "prompt": "hello",
        "temperature": 0.0,
        "repetition_penalty": 1.0,
        "max_tokens": 6,
        "logprobs": None,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    *chunks, done = events(http, "/v1/completions", body)
    assert done == "[DONE]"
    *text_chunks, usage = chunks
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 6
    assert "".join(chunk["choices"][0]["text"] for chunk in text_chunks) == "helloh"


def events(http: httpx.Client, path: str, body: dict[str, Any]) -> list[Any]:
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    found = []
    for line in response.text.split("\n\n"):
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            found.append(data if data == "[DONE]" else json.loads(data))
    return found
