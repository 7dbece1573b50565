"""What a request leaves out is the model's own default; what it says holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from fastapi import FastAPI

from server.app import create_app
from server.engine.loading.generation_config import read_sampling_defaults
from server.engine.sampling import SamplingDefaults, SamplingParams
from server.models import SMOLLM2, SMOLLM2_DEMO_DIR, ModelSource
from server.settings import Settings
from server.store import Store

from .conftest import chat, connect
from .echo_engine import EchoEngine

DEFAULTS = SamplingDefaults(
    temperature=0.2, top_p=0.9, top_k=7, min_p=0.1, repetition_penalty=1.1, max_tokens=3
)
ASKED: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}


@pytest.fixture
def app(settings: Settings, engine: EchoEngine, store: Store) -> FastAPI:
    engine.recommend(DEFAULTS)
    return create_app(settings, engine, store)  # type: ignore[arg-type]


async def _sampled(
    client: httpx.AsyncClient, engine: EchoEngine, path: str, body: dict[str, Any]
) -> SamplingParams:
    engine.requests.clear()
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return engine.requests[0].sampling


async def test_chats_take_what_they_leave_out_from_the_model(
    client: httpx.AsyncClient, engine: EchoEngine
) -> None:
    path = "/v1/chat/completions"
    plain = await _sampled(client, engine, path, chat())
    assert plain == SamplingParams(**DEFAULTS.given())
    asked = await _sampled(client, engine, path, chat(**ASKED, max_tokens=5))
    assert asked == SamplingParams(max_tokens=5)
    some = await _sampled(client, engine, path, chat(temperature=0, min_tokens=4))
    expected = replace(DEFAULTS, temperature=0.0, max_tokens=4)
    assert some == SamplingParams(**expected.given(), min_tokens=4)


async def test_a_completion_keeps_its_own_length(
    client: httpx.AsyncClient, engine: EchoEngine
) -> None:
    body = {"model": "echo", "prompt": "hello"}
    plain = await _sampled(client, engine, "/v1/completions", body)
    assert plain == SamplingParams(**{**DEFAULTS.given(), "max_tokens": 16})


async def test_the_default_length_gives_way_to_a_long_prompt(
    settings: Settings, store: Store
) -> None:
    engine = EchoEngine(max_model_len=100)
    engine.recommend(replace(DEFAULTS, max_tokens=60))
    app = create_app(settings, engine, store)  # type: ignore[arg-type]
    async with connect(app) as client:
        sampling = await _sampled(client, engine, "/v1/chat/completions", chat("x" * 70))
        assert sampling.max_tokens is not None
        assert 0 < sampling.max_tokens < 30
        refused = await client.post("/v1/chat/completions", json=chat("x" * 100))
        assert refused.json()["error"]["code"] == "context_length_exceeded"


async def test_capabilities_tell_the_defaults(client: httpx.AsyncClient) -> None:
    told = (await client.get("/v1/capabilities")).json()["model"]["sampling"]
    assert told == {"temperature": 0.2, "top_p": 0.9, "top_k": 7} | {
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "max_tokens": 3,
    }


@pytest.mark.parametrize("setting", ["model", "none"])
def test_a_model_with_a_demo_is_sampled_as_that_recommends(
    store: Store, tmp_path: Path, setting: Literal["model", "none"]
) -> None:
    engine = EchoEngine()
    own = SamplingDefaults(temperature=0.7) if setting == "model" else SamplingDefaults()
    engine.recommend(own)
    settings = Settings(data_dir=tmp_path, generation_config=setting)
    source = ModelSource(tmp_path, "smollm2", "as asked for", SMOLLM2)
    app = create_app(settings, engine, store, source=source)  # type: ignore[arg-type]
    recommended = read_sampling_defaults(SMOLLM2_DEMO_DIR)
    assert recommended.top_p is not None
    expected = own.over(recommended) if setting == "model" else SamplingDefaults()
    assert app.state.services.sampling == expected
