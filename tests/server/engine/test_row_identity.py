"""Invariants 1, 3, 4 and 8: a request gets what it gets alone, whatever runs beside it.

Random traces of arrivals, chunk sizes, preemptions, cache hits and cancellations; every sampled
token's logits are compared with one plain forward of that request alone.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from server.engine.loader import LoadedModel
from tests.models import tiny_model

from .harness import EngineHarness, load_tiny
from .random_traffic import random_traffic
from .reference import reference_logits

FAMILIES = ["llama", "qwen3", "gemma3", "gpt2", "qwen3_moe"]
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("seed", range(6))
def test_every_request_gets_the_logits_it_gets_alone(loaded: LoadedModel, seed: int) -> None:
    rng = np.random.default_rng(seed)
    harness = EngineHarness(
        loaded,
        max_num_batched_tokens=int(rng.integers(5, 40)),
        max_num_seqs=int(rng.integers(2, 9)),
        max_live_edits=int(rng.integers(4, 9)),
        num_kv_blocks=int(rng.integers(14, 30)),  # few: requests preempt each other
    )
    traffic = random_traffic(harness, rng, count=10)
    sinks = harness.run(*(item.traffic for item in traffic))
    bare = tiny_model(loaded.layout.family.removesuffix("_text"))

    for item, sink in zip(traffic, sinks, strict=True):
        prompt, produced = item.request.prompt_token_ids, sink.token_ids
        sampled = harness.logits.get(item.request.request_id, [])
        if not sampled:
            assert sink.errors, "only a cancelled request samples nothing"
            continue
        known = [*prompt, *produced][: len(prompt) + len(sampled) - 1]
        want = reference_logits(bare, loaded.spec, known, len(prompt), item.steers)
        want = want[len(prompt) - 1 :]
        got = torch.stack(sampled)
        scale = float(want.abs().max().clamp(min=1.0))
        assert float((got - want).abs().max()) < TOLERANCE * scale, item.steers


def test_traces_do_preempt_and_do_hit_the_cache(loaded: LoadedModel) -> None:
    preemptions = hits = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        harness = EngineHarness(loaded, max_num_batched_tokens=24, num_kv_blocks=14)
        harness.run(*(item.traffic for item in random_traffic(harness, rng, count=10)))
        stats = harness.core.stats(is_healthy=True, is_draining=False)
        preemptions += stats.num_preemptions
        hits += stats.prefix_cache_hits
    assert preemptions > 0
    assert hits > 0
