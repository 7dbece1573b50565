"""Captured decode steps on a CUDA device give what eager ones give; skipped where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from server.engine.graphs import decode_graphs
from server.engine.loading import LoadedModel
from server.engine.outputs import StepMode
from tests.server.engine.harness import EngineHarness, load_tiny
from tests.server.engine.random_traffic import random_traffic

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

_WIDE: dict[str, Any] = {"block_size": 16, "kv_cache_bytes": 1 << 24}


@pytest.fixture(scope="module", params=["llama", "qwen3", "gemma2", "gpt2", "qwen3_moe"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    path = tmp_path_factory.mktemp(request.param)
    return load_tiny(request.param, path, device="cuda", dtype="float32", **_WIDE)


@pytest.mark.parametrize("seed", range(2))
def test_a_replay_gives_what_an_eager_step_gives(
    loaded: LoadedModel, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_graphs, "_TIMES_SEEN", 1)
    eager = EngineHarness(loaded, cuda_graphs="off")
    traffic = random_traffic(eager, np.random.default_rng(seed), count=10, cancel=False)
    want = eager.run(*(item.traffic for item in traffic))
    graphs = EngineHarness(loaded, cuda_graphs="auto")
    got = graphs.run(*(item.traffic for item in traffic))
    for item, one, other in zip(traffic, want, got, strict=True):
        mine, its = (torch.stack(each.logits[item.request.request_id]) for each in (graphs, eager))
        torch.testing.assert_close(mine, its, atol=1e-3, rtol=1e-3)
        assert one.outputs[-1].steered_tokens == other.outputs[-1].steered_tokens
    modes = graphs.core.stats(is_healthy=True, is_draining=False).steps_by_mode
    assert modes[StepMode.CAPTURED] > 0
    assert modes[StepMode.REPLAYED] > 0
