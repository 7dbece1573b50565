"""The embedded model behind HTTP: what is steered, what is not, and that they never mix."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.embedded_engine import start_embedded

from .conftest import Served, serving

CHAT = "/v1/chat/completions"
QUESTIONS = ("hello", "What is a good soup?", "Tell me about the moon.", "How do I bake bread?")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    engine = start_embedded("tiny")
    with serving(tmp_path_factory.mktemp("real"), engine) as server:
        width, draw = engine.info().spec.hidden_size, random.Random(7)
        for name in ("one", "two"):
            direction = {
                "name": name,
                "kind": "vector",
                "site": "resid_post",
                "layers": [2, 3],
                "tensors": {"vector": [draw.gauss(0, 1) for _ in range(width)]},
            }
            profile = {
                "name": name,
                "interventions": [{"operation": "add", "direction": name, "strength": 4.0}],
                "publish": True,
            }
            for path, body in (("directions", direction), ("profiles", profile)):
                httpx.post(f"{server.url}/v1/steering/{path}", json=body).raise_for_status()
        yield server
    engine.close()


def body(question: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 24, **fields}


def ask(server: Served, question: str, **fields: Any) -> dict[str, Any]:
    response = httpx.post(f"{server.url}{CHAT}", json=body(question, **fields), timeout=60)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def text(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


async def test_requests_of_every_kind_at_once_answer_as_each_alone(real: Served) -> None:
    cases = [(q, m) for q in QUESTIONS for m in ("tiny", "tiny:one", "tiny:two")]
    alone = {(q, m): text(ask(real, q, model=m)) for q, m in cases}
    assert len(set(alone.values())) > len(QUESTIONS), "steering changes nothing"
    async with httpx.AsyncClient(base_url=real.url, timeout=60) as client:

        async def one(question: str, model: str) -> str:
            response = await client.post(CHAT, json=body(question, model=model))
            return text(response.json())

        together = await asyncio.gather(*(one(*case) for case in cases))
    assert dict(zip(cases, together, strict=True)) == alone


def test_comparing_answers_both_ways_in_one_call(real: Served) -> None:
    plain, steered = ask(real, QUESTIONS[1]), ask(real, QUESTIONS[1], model="tiny:one")
    both = ask(real, QUESTIONS[1], model="tiny:one", steering={"compare": True})
    assert text(both) == text(steered)
    assert text(both["steering"]["baseline"]) == text(plain)


def test_strength_zero_is_no_steering(real: Served) -> None:
    still = ask(real, QUESTIONS[2], model="tiny:one", steering={"strength": 0})
    assert text(still) == text(ask(real, QUESTIONS[2]))


def test_every_token_that_should_be_is_counted_as_steered(real: Served) -> None:
    answer = ask(real, QUESTIONS[0], model="tiny:two")
    usage, steered = answer["usage"], answer["steering"]["steered_tokens"]
    assert steered["prompt"] == usage["prompt_tokens"]
    assert steered["generated"] == usage["completion_tokens"] - 1
    scope = {"tokens": "last_prompt"}
    item = {"operation": "add", "direction": "one", "scope": scope}
    answer = ask(real, QUESTIONS[0], steering={"interventions": [item]})
    assert answer["steering"]["steered_tokens"] == {"prompt": 1, "generated": 0}


def test_monitors_read_the_last_prompt_token_and_every_generated_one(real: Served) -> None:
    answer = ask(real, QUESTIONS[0], steering={"monitors": [{"direction": "one"}]})
    [reading] = answer["steering"]["monitors"]["one@1"]
    start, count = answer["usage"]["prompt_tokens"] - 1, answer["usage"]["completion_tokens"]
    assert reading["positions"] == list(range(start, start + count))
    assert len(reading["scores"]) == count


def test_a_stream_says_what_the_whole_answer_says(real: Served) -> None:
    import openai

    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="none") as sdk:
        stream = sdk.chat.completions.create(**body(QUESTIONS[3], model="tiny:one", stream=True))
        chunks = list(stream)
    whole = ask(real, QUESTIONS[3], model="tiny:one")
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == text(whole)
    assert chunks[-1].choices[0].finish_reason == whole["choices"][0]["finish_reason"]
    assert chunks[-1].steering["steered_tokens"] == whole["steering"]["steered_tokens"]


def test_a_seed_repeats_each_choice(real: Served) -> None:
    fields: dict[str, Any] = {"temperature": 1.0, "seed": 5, "n": 3}
    first, second = (ask(real, QUESTIONS[1], **fields)["choices"] for _ in range(2))
    assert first == second
    assert len({choice["message"]["content"] for choice in first}) > 1


def test_scoring_a_text_agrees_with_generating_it(real: Served) -> None:
    """The log-probabilities of greedy tokens are the same when the text is scored as a prompt."""
    prompt = httpx.post(
        f"{real.url}/tokenize", json={"messages": body(QUESTIONS[0])["messages"]}
    ).json()["tokens"]
    request = {"model": "tiny:one", "prompt": prompt, "temperature": 0, "logprobs": 1}
    generated = httpx.post(
        f"{real.url}/v1/completions",
        json={**request, "max_tokens": 6, "return_token_ids": True},
        timeout=60,
    ).json()["choices"][0]
    scored = httpx.post(
        f"{real.url}/v1/completions",
        json={**request, "prompt": prompt + generated["token_ids"], "max_tokens": 0, "echo": True},
        timeout=60,
    ).json()["choices"][0]
    tail = scored["logprobs"]["token_logprobs"][len(prompt) :]
    assert tail == pytest.approx(generated["logprobs"]["token_logprobs"], abs=1e-4)
    tops = scored["logprobs"]["top_logprobs"][len(prompt) :]
    assert all(value == max(top.values()) for value, top in zip(tail, tops, strict=True))


def test_stopping_in_the_middle_leaves_no_place_taken(real: Served) -> None:
    for _ in range(5):
        with httpx.stream(
            "POST",
            f"{real.url}{CHAT}",
            json=body(QUESTIONS[2], stream=True, ignore_eos=True, max_tokens=600),
        ) as stream:
            next(stream.iter_lines())
    ask(real, QUESTIONS[0])
    stats = real.engine.stats()
    for _ in range(200):
        if stats.num_requests_running == 0:
            break
        ask(real, QUESTIONS[0], max_tokens=1)
        stats = real.engine.stats()
    assert (stats.num_requests_running, stats.kv_cache_usage_ratio) == (0, 0.0)


def test_every_site_that_is_offered_can_be_steered(real: Served) -> None:
    found = httpx.get(f"{real.url}/v1/capabilities").json()
    for site in found["sites"]:
        if not site["is_editable"] or site["width"] != found["model"]["hidden_size"]:
            continue
        layer = 0 if site["site"] == "embed" else 2
        item = {"operation": "add", "direction": "one", "site": site["site"], "layers": [layer]}
        answer = ask(real, QUESTIONS[0], max_tokens=2, steering={"interventions": [item]})
        assert answer["steering"]["applied"][0]["site"] == site["site"]


THINKS = {"chat_template_kwargs": {"enable_thinking": True}, "max_tokens": 96}


def test_the_embedded_model_thinks_where_it_is_asked_to(real: Served) -> None:
    parsed = ask(real, QUESTIONS[1], **THINKS)
    raw = ask(real, QUESTIONS[1], **THINKS, reasoning_format="raw")
    message = parsed["choices"][0]["message"]
    assert message["reasoning_content"].strip()
    assert message["content"].strip()
    assert text(raw) == f"<think>{message['reasoning_content']}</think>{message['content']}"
    assert parsed["chat_template"]["variables"] == {"enable_thinking": True}
    plain = ask(real, QUESTIONS[1])
    assert "reasoning_content" not in plain["choices"][0]["message"]
    assert plain["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}
    effort = ask(real, QUESTIONS[1], max_tokens=96, reasoning_effort="low")
    assert effort["choices"] == parsed["choices"]
    again = [
        {"role": "user", "content": QUESTIONS[1]},
        {name: value for name, value in message.items() if name != "refusal"},
        {"role": "user", "content": QUESTIONS[2]},
    ]
    tokens = httpx.post(f"{real.url}/tokenize", json={"messages": again, "return_token_strs": True})
    assert text(raw) in "".join(tokens.json()["token_strs"]), "a thought sent back is as written"


def test_steering_of_thoughts_acts_on_the_tokens_that_are_split_off(real: Served) -> None:
    edit = {"operation": "add", "direction": "one", "strength": 0.01}
    for region in ("thinking", "answer"):
        steering = {"interventions": [{**edit, "scope": {"regions": [region]}}]}
        answer = ask(real, QUESTIONS[1], **THINKS, steering=steering)
        usage = answer["usage"]
        thought = usage["completion_tokens_details"]["reasoning_tokens"]
        said = usage["completion_tokens"] - 1 - thought  # the end token is never run
        wanted = thought if region == "thinking" else said
        assert answer["steering"]["steered_tokens"]["generated"] == wanted > 0
