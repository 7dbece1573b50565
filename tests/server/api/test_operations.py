"""Health, metrics, models, capabilities, the tokenizer, the documentation, stopping."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

from server.api.http.limits import Limits
from server.api.route_list import list_routes
from server.app import create_app
from server.metrics import Labelled, Metrics
from server.serve import Binding, DrainingServer, bind
from server.settings import Settings
from server.store import Store

from .conftest import chat, connect, create_cheerful, vector
from .echo_engine import EchoEngine

CHAT = "/v1/chat/completions"
DIRECTIONS = "/v1/steering/directions"


async def test_health_follows_the_engine(client: httpx.AsyncClient, engine: EchoEngine) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        assert (await client.get(path)).status_code == 200
    engine.seconds_since_progress, engine.is_healthy = 31.0, False  # a hung engine is both
    for path in ("/health", "/health/live", "/health/ready"):
        response = await client.get(path)
        assert response.status_code == 503
        assert "no progress" in response.json()["error"]["message"]
    engine.seconds_since_progress = 0.0
    response = await client.get("/health/live")
    assert response.status_code == 503
    assert "has stopped" in response.json()["error"]["message"]


async def test_the_process_ends_when_the_heartbeat_stays_old_not_when_it_was(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paused container goes on with a heartbeat as old as the pause, and with the next beat."""
    seen = iter([None, "old", None, "old", "older", "never asked"])
    services = app.state.services
    monkeypatch.setattr(services.lifecycle, "why_not_live", lambda: next(seen))
    monkeypatch.setattr("server.serve._WATCH_SECONDS", 0.0)
    server = DrainingServer(app, services, Binding(1, 0.0))
    await server._watch()
    assert server.failure == "older"
    assert server.should_exit
    assert next(seen) == "never asked"


async def test_a_full_collection_does_not_look_through_what_was_loaded(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the lock of all threads, for as long as there are objects to look at."""
    done: list[str] = []
    for name in ("collect", "freeze"):
        monkeypatch.setattr(f"gc.{name}", partial(done.append, name))
    server = DrainingServer(app, app.state.services, Binding(1, 0.0))
    server.should_exit = True
    await server.serve(bind("127.0.0.1", 0))
    assert done == ["collect", "freeze"]


async def test_while_stopping_new_requests_go_elsewhere_and_running_ones_finish(
    app: FastAPI, engine: EchoEngine, client: httpx.AsyncClient
) -> None:
    engine.faults.gate, engine.faults.gate_from = asyncio.Event(), 1
    running = asyncio.create_task(client.post(CHAT, json=chat("hello", stream=True)))
    await engine.has_running(1)
    app.state.services.lifecycle.begin_drain()
    draining = asyncio.create_task(engine.drain(30))
    assert (await client.get("/health/live")).status_code == 200
    assert (await client.get("/health/ready")).status_code == 503
    assert (await client.get("/metrics")).status_code == 200
    refused = await client.post(CHAT, json=chat())
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["x-should-retry"] == "true"
    engine.faults.gate.set()
    assert (await running).text.endswith("data: [DONE]\n\n")
    await draining


async def test_what_does_not_finish_in_time_is_told_so(
    app: FastAPI, engine: EchoEngine, client: httpx.AsyncClient
) -> None:
    engine.faults.gate, engine.faults.gate_from = asyncio.Event(), 1
    running = asyncio.create_task(client.post(CHAT, json=chat("hello", stream=True)))
    await engine.has_running(1)
    app.state.services.lifecycle.begin_drain()
    await engine.drain(0)
    text = (await running).text
    assert '"code":"server_shutdown"' in text
    assert "[DONE]" not in text


async def test_models_are_the_model_and_each_published_profile(
    client: httpx.AsyncClient,
) -> None:
    await create_cheerful(client)
    models = (await client.get("/v1/models")).json()
    assert models["object"] == "list"
    base, steered = models["data"]
    assert (base["id"], base["object"], base["max_model_len"]) == ("echo", "model", 2048)
    assert (steered["id"], steered["parent"], steered["root"]) == ("echo:cheerful", "echo", "echo")
    await client.put("/v1/steering/aliases/live", json={"profile": "cheerful"})
    for name in ("echo", "echo:cheerful", "echo:cheerful@1", "echo:live", "echo:none"):
        assert (await client.get(f"/v1/models/{name}")).json()["id"] == name
    for name in ("nope", "echo:nope", "echo:cheerful@2", "a/b:c", "echo:A B"):
        response = await client.get(f"/v1/models/{name}")
        assert response.status_code == 404
        error = response.json()["error"]
        assert error["code"] == "model_not_found"
        assert f"model is '{name}'; expected 'echo' or 'echo:PROFILE'" in error["message"]


async def test_capabilities_say_what_is_there_and_why_not(client: httpx.AsyncClient) -> None:
    found = (await client.get("/v1/capabilities")).json()
    sites = {site["site"]: site for site in found["sites"]}
    assert sites["resid_mid"]["is_available"] is False
    assert sites["resid_mid"]["reason"] == "its residual is parallel"
    assert (sites["final"]["is_available"], sites["final"]["is_editable"]) == (True, False)
    assert sites["resid_post"]["resid_norms"] == {"0": 2.0, "1": 3.0, "2": 4.0, "3": 5.0}
    assert "rank_one" in found["operations"]
    assert "tools" in found["not_available"]
    assert found["limits"]["max_choices"] == Limits(max_model_len=2048).max_choices


def padded(body: dict[str, Any], size: int) -> bytes:
    return json.dumps(body).encode().ljust(size)


ADD = {"operation": "add", "direction": "cheer"}
COMPLETIONS = "/v1/completions"
VALIDATE = "/v1/steering/profiles:validate"
# Each limit that a request can reach: a request that takes so much of it.
SPENDING: dict[str, tuple[str, Callable[[int], dict[str, Any] | bytes]]] = {
    "max_choices": (CHAT, lambda n: chat(n=n, max_tokens=1)),
    "max_logprobs": (CHAT, lambda n: chat(logprobs=True, top_logprobs=n, max_tokens=1)),
    "max_messages": (CHAT, lambda n: chat(messages=[{"role": "user", "content": ""}] * n)),
    "max_prompts": (COMPLETIONS, lambda n: {"model": "echo", "prompt": ["a"] * n, "max_tokens": 1}),
    "max_interventions": (VALIDATE, lambda n: {"name": "x", "interventions": [ADD] * n}),
    "max_body_bytes": (VALIDATE, lambda n: padded({"name": "x", "interventions": [ADD]}, n)),
    "max_chat_bytes": (CHAT, lambda n: padded(chat(max_tokens=1), n)),
    "max_model_len": (COMPLETIONS, lambda n: {"model": "echo", "prompt": "a", "max_tokens": n - 1}),
    "max_upload_tensors": (
        DIRECTIONS,
        lambda n: vector("y", tensors={f"t{i}": [1] for i in range(n)}),
    ),
}
# What takes all of these is refused for another reason: no room, too long, or no direction.
REFUSED_AT_THE_LIMIT = {"max_prompts", "max_messages", "max_upload_tensors"}
ELSEWHERE = {  # how the engine works, and the size of files
    *("max_num_seqs", "max_num_batched_tokens", "max_live_edits", "default_max_strength"),
    *("max_upload_bytes", "max_json_upload_bytes"),
}


@pytest.mark.parametrize(
    "changed", [{}, {"max_choices": 2, "max_body_bytes": 200_000}, {"max_choices": 20}]
)
async def test_limits_are_those_that_are_said(
    settings: Settings, engine: EchoEngine, store: Store, changed: dict[str, int]
) -> None:
    """At a limit a request is not refused for it; one beyond it is."""
    app = create_app(settings.model_copy(update=changed), engine, store)  # type: ignore[arg-type]
    async with connect(app) as client:
        await create_cheerful(client)
        limits = (await client.get("/v1/capabilities")).json()["limits"]
        assert set(limits) == set(SPENDING) | ELSEWHERE
        assert {name: limits[name] for name in changed} == changed
        for name, (route, spend) in SPENDING.items():
            told = []
            for size in (limits[name], limits[name] + 1):
                body = spend(size)
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                headers = {"content-type": "application/json"}
                response = await client.post(route, content=content, headers=headers)
                told.append((response.status_code, response.json().get("error", {}).get("message")))
            assert told[0] != told[1], (name, told)
            assert told[1][0] in (400, 413, 422), (name, told)
            if name not in REFUSED_AT_THE_LIMIT:
                assert told[0][0] == 200, (name, told)


async def test_text_and_chats_are_tokenized_and_back(client: httpx.AsyncClient) -> None:
    for prefix in ("", "/v1"):
        body = {"model": "echo", "prompt": "hé", "return_token_strs": True}
        answer = (await client.post(f"{prefix}/tokenize", json=body)).json()
        assert (answer["tokens"], answer["count"]) == ([104, 195, 169], 3)
        assert answer["max_model_len"] == 2048
        tokens = {"tokens": answer["tokens"]}
        back = (await client.post(f"{prefix}/detokenize", json=tokens)).json()
        assert back == {"prompt": "hé"}
        info = (await client.get(f"{prefix}/tokenizer_info")).json()
        assert info["eos_token"] == "<|im_end|>"
        assert info["chat_template_variables"] == {"default": ["thinking"]}
        assert info["thinking_markers"] == ["<think>", "</think>"]
    chat_tokens = (await client.post("/tokenize", json=chat("hi"))).json()["tokens"]
    assert chat_tokens[0] == 256


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}, "prompt"),
        ("/tokenize", {"prompt": "x", "model": "nope"}, "model"),
        ("/detokenize", {"tokens": [258]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {}, "tokens"),
    ],
)
async def test_bad_tokenizer_requests_are_named(
    client: httpx.AsyncClient, path: str, body: dict[str, object], param: str
) -> None:
    response = await client.post(path, json=body)
    assert response.status_code in (400, 404)
    assert response.json()["error"]["param"] == param


async def test_metrics_count_what_happened(client: httpx.AsyncClient) -> None:
    await create_cheerful(client)
    await client.post(CHAT, json=chat("hello", model="echo:cheerful", stream=True))
    await client.post(CHAT, json=chat("hello", n=2))
    await client.post(CHAT, json=chat(temperature=9))
    lines = (await client.get("/metrics")).text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values['coxswain_requests_total{finish="stop"}'] == "2.0"
    assert values['coxswain_profile_requests_total{profile="cheerful",version="1"}'] == "1.0"
    assert values['coxswain_generation_tokens_total{profile="cheerful"}'] == "6.0"
    assert values['coxswain_generation_tokens_total{profile="none"}'] == str(6.0 + 9.0)
    assert values['coxswain_requests_rejected_total{code="invalid_sampling"}'] == "1.0"
    assert values["coxswain_time_to_first_token_seconds_count"] == "2.0"
    assert values["coxswain_inter_token_latency_seconds_count"] == str(5.0 + 5.0 + 8.0)
    assert values["coxswain_request_latency_seconds_count"] == "2.0"
    assert values["coxswain_kv_cache_usage_ratio"] == "0.25"
    assert values["coxswain_num_requests_running"] == "0.0"
    assert values["coxswain_not_applied_total"] == "0.0"
    assert values["coxswain_auth_disabled"] == "1.0"
    assert float(values['coxswain_applied_tokens_total{profile="cheerful"}']) > 5


def test_no_label_makes_a_metric_grow_without_end(engine: EchoEngine) -> None:
    metrics = Metrics(engine.stats, is_auth_disabled=False)
    wrapped = [item for item in vars(metrics).values() if isinstance(item, Labelled)]
    assert len(wrapped) >= 9
    for item in wrapped:
        for number in (*range(2000), 0, 1):
            series = item.labels(*[f"v{number}"] * len(item._metric._labelnames))
            series.inc() if isinstance(series, Counter) else series.observe(1.0)
    values = {}
    sets: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for name, labels, value, *_ in family.samples:
            own = {key: text for key, text in labels.items() if key != "le"}
            if own and not name.endswith("_created"):
                sets.setdefault(name, set()).add(str(own))
                values[name, *own.values()] = value
    assert {len(found) for found in sets.values()} == {257}
    assert len(sets) >= len(wrapped)
    assert values["coxswain_prompt_tokens_total", "v0"] == 2.0
    assert values["coxswain_prompt_tokens_total", "v255"] == 1.0
    assert values["coxswain_prompt_tokens_total", "_other"] == 2000.0 - 256
    assert values["coxswain_profile_requests_total", "_other", "_other"] == 2000.0 - 256


def test_every_metric_with_labels_is_bounded(engine: EchoEngine) -> None:
    metrics = Metrics(engine.stats, is_auth_disabled=False)
    for name, item in vars(metrics).items():
        assert not getattr(item, "_labelnames", ()), f"{name} is not Labelled"


async def test_the_openapi_document_is_whole(app: FastAPI, client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    for route in list_routes(app):
        path = route.path.replace("{model:path}", "{model}")
        operation = document["paths"][path][route.method.lower()]
        assert operation["x-coxswain-scope"] == route.permission
    names = set(document["components"]["schemas"])
    text = str(document)
    used = {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}
    assert used <= names
    assert "ChatRequest" in used


async def test_the_documentation_is_there_on_loopback_only(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    assert (await client.get("/docs")).status_code == 200
    assert settings.is_loopback


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("localhost.example.org", False),
    ],
)
def test_loopback_is_told_from_the_rest(host: str, is_loopback: bool) -> None:
    assert Settings(host=host).is_loopback is is_loopback


async def test_a_trusted_name_is_answered_to(settings: Settings, app: FastAPI) -> None:
    async with connect(app) as client:
        refused = await client.get("/health", headers={"host": "chat.example.org"})
    assert refused.status_code == 400
