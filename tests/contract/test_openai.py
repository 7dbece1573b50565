"""What the `openai` package sends and expects, on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from server.engine.errors import GenerationError, NonFiniteOutputError, QueueFullError

from .conftest import Served

USER: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
def sdk(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client
    served.engine.faults.errors.clear()


def test_models(sdk: Any) -> None:
    models = {model.id: model for model in sdk.models.list()}
    assert set(models) == {"echo", "echo:cheerful"}
    assert models["echo"].max_model_len == 2048
    assert sdk.models.retrieve("echo:cheerful").id == "echo:cheerful"


def test_a_chat_with_extra_fields(sdk: Any) -> None:
    answer = sdk.chat.completions.create(
        model="echo",
        messages=USER,
        max_tokens=3,
        extra_body={"top_k": 3},
        extra_headers={"X-Steering": "ignored", "X-Steering-Profile": "cheerful"},
    )
    assert answer.choices[0].message.content == "HEL"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    assert answer.steering["profile"] == "cheerful"


def test_a_thought_and_what_a_chat_asks_of_the_template(sdk: Any) -> None:
    asked: dict[str, Any] = {
        "model": "echo",
        "messages": [{"role": "user", "content": "Hm.</think>So."}],
        "reasoning_effort": "low",
        "extra_body": {"chat_template_kwargs": {"thinking": True}},
    }
    answer = sdk.chat.completions.create(**asked)
    message = answer.choices[0].message
    assert (message.reasoning_content, message.reasoning, message.content) == ("Hm.", "Hm.", "So.")
    assert answer.usage.completion_tokens_details.reasoning_tokens == len("Hm.</think>")
    assert answer.chat_template["variables"] == {"thinking": True}
    deltas = [c.choices[0].delta for c in sdk.chat.completions.create(**asked, stream=True)]
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in deltas) == "Hm."
    assert "".join(d.content or "" for d in deltas) == "So."
    again = [*asked["messages"], message.model_dump(exclude_none=True), asked["messages"][0]]
    assert sdk.chat.completions.create(**{**asked, "messages": again}).choices


def test_a_stream_with_usage(sdk: Any) -> None:
    stream = sdk.chat.completions.create(
        model="echo:cheerful",
        messages=USER,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "HELLO"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + 6
    assert chunks[-1].steering["steered_tokens"]["generated"] == 5


def test_the_streaming_helper_adds_it_all_up(sdk: Any) -> None:
    with sdk.chat.completions.stream(
        model="echo",
        messages=USER,
        logprobs=True,
        top_logprobs=2,
    ) as stream:
        answer = stream.get_final_completion()
    assert answer.choices[0].message.content == "hello"
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [entry.token for entry in logprobs.content] == [*"hello", "<|im_end|>"]
    assert all(len(entry.top_logprobs) == 2 for entry in logprobs.content)


def test_max_completion_tokens_and_a_nested_steering_object(sdk: Any) -> None:
    """As langchain-openai, litellm and inspect-ai send them."""
    answer = sdk.chat.completions.create(
        model="echo",
        messages=USER,
        max_completion_tokens=4,
        seed=1,
        stop=["l"],
        extra_body={"steering": {"profile": "cheerful", "strength": 0.5}},
    )
    assert answer.choices[0].message.content == "HELL"
    assert answer.steering["applied"][0]["strength"] == 1.0


def test_completions_of_every_kind_of_prompt(sdk: Any) -> None:
    prompts: list[Any] = ["ab", ["ab", "cd"], [97, 98], [[97, 98], [99, 100]]]
    for prompt in prompts:
        answer = sdk.completions.create(model="echo", prompt=prompt, n=2, max_tokens=2)
        texts = [choice.text for choice in answer.choices]
        expected = ["ab", "ab", "cd", "cd"] if len(texts) == 4 else ["ab", "ab"]
        assert texts == expected
        assert [choice.index for choice in answer.choices] == list(range(len(texts)))


def test_errors_are_told_apart(sdk: Any, served: Served) -> None:
    def chat(**fields: object) -> object:
        return sdk.chat.completions.create(**{"model": "echo", "messages": USER, **fields})

    with pytest.raises(openai.BadRequestError) as bad:
        chat(temperature=3)
    assert (bad.value.code, bad.value.param) == ("invalid_sampling", "temperature")
    assert bad.value.request_id
    with pytest.raises(openai.NotFoundError) as missing:
        chat(model="nope")
    assert missing.value.code == "model_not_found"
    served.engine.faults.errors[0] = QueueFullError("full")
    with pytest.raises(openai.RateLimitError):
        chat()
    served.engine.faults.errors[0] = GenerationError("broken")
    with pytest.raises(openai.InternalServerError):
        chat()
    served.engine.faults.errors[0] = NonFiniteOutputError("NaN", is_steered=True)
    with pytest.raises(openai.UnprocessableEntityError) as nonfinite:
        chat()
    assert nonfinite.value.code == "steering_nonfinite"


def test_a_failing_stream_is_never_taken_for_a_short_answer(sdk: Any, served: Served) -> None:
    served.engine.faults.errors[2] = GenerationError("broken")
    stream = sdk.chat.completions.create(model="echo", messages=USER, stream=True)
    chunks = iter(stream)
    texts = [next(chunks).choices[0].delta.content for _ in range(3)]
    assert texts == ["", "h", "e"]
    with pytest.raises(openai.APIError) as broken:
        next(chunks)
    assert broken.value.code == "engine_request_failed"


async def test_many_at_once_over_sockets(served: Served) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none") as client:

        async def ask(index: int) -> str | None:
            answer = await client.chat.completions.create(
                model="echo:cheerful" if index % 2 else "echo",
                messages=[{"role": "user", "content": f"text {index}"}],
            )
            return answer.choices[0].message.content

        texts = await asyncio.gather(*(ask(index) for index in range(16)))
    assert texts == [f"{'TEXT' if i % 2 else 'text'} {i}" for i in range(16)]
