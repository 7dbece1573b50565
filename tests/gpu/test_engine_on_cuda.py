"""The engine's invariants on a CUDA device; skipped, and said so, where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from server.engine.loading import LoadedModel
from tests.models import tiny_model
from tests.server.engine.harness import EngineHarness, load_tiny
from tests.server.engine.random_traffic import random_traffic
from tests.server.engine.reference import reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module", params=["llama", "qwen3", "gemma2", "gemma3", "gpt2"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    path = tmp_path_factory.mktemp(request.param)
    return load_tiny(request.param, path, device="cuda", dtype="float32")


@pytest.mark.parametrize("seed", range(3))
def test_every_request_gets_the_logits_it_gets_alone(loaded: LoadedModel, seed: int) -> None:
    rng = np.random.default_rng(seed)
    harness = EngineHarness(loaded, max_num_batched_tokens=24, num_kv_blocks=20)
    traffic = random_traffic(harness, rng, count=10, cancel=False)
    sinks = harness.run(*(item.traffic for item in traffic))
    bare = tiny_model(loaded.layout.family.removesuffix("_text"))
    for item, sink in zip(traffic, sinks, strict=True):
        prompt = item.request.prompt_token_ids
        got = torch.stack(harness.logits[item.request.request_id]).cpu()
        known = [*prompt, *sink.token_ids][: len(prompt) + len(got) - 1]
        found = reference(bare, loaded.spec, known, len(prompt), item.steers)
        if found.gates.margin < 1e-4:
            continue  # rounding decides whether a gate is open
        want = found.logits[len(prompt) - 1 :]
        scale = float(want.abs().max().clamp(min=1.0))
        assert float((got - want).abs().max()) < 1e-3 * scale, item.steers


def test_no_hook_waits_for_the_device(loaded: LoadedModel) -> None:
    rng = np.random.default_rng(5)
    harness = EngineHarness(loaded)
    model = loaded.model
    original = model.forward

    def forward(*args: object, **kwargs: object) -> object:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return original(*args, **kwargs)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    model.forward = forward
    try:
        traffic = random_traffic(harness, rng, count=6, cancel=False)
        harness.run(*(item.traffic for item in traffic))
    finally:
        model.forward = original
