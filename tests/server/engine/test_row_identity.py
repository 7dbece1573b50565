"""Invariants 1, 3, 4 and 8: a request gets what it gets alone, whatever runs beside it.

Random traces of arrivals, chunk sizes, preemptions, cache hits and cancellations; every sampled
token's logits are compared with one plain forward of that request alone.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from server.engine.loading import LoadedModel
from server.engine.outputs import GateState, SteeredTokens
from server.engine.scheduler import Pace, Work
from steering.documents import Per, PositionContext
from tests.models import tiny_model
from tests.steering.runtime.addressing import ADDRESSING, prefer

from .harness import EngineHarness, RecordingSink, load_tiny
from .random_traffic import SteeredTraffic, random_traffic
from .reference import Reference, reference

FAMILIES = ["llama", "qwen3", "gemma3", "gpt2", "qwen3_moe"]
TOLERANCE = 1e-4
MARGIN = 1e-5


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(request.param, tmp_path_factory.mktemp(request.param))


class _AnyMachine:
    """Cuts prompts by another pace in every step: results do not depend on how."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.num_tokens = 0
        self._rng = rng

    @property
    def pace(self) -> Pace:
        token, pair, logit = (float(cost) for cost in 10.0 ** self._rng.uniform(-4, 0, 3))
        return Pace(token, pair, logit, max_chunk_seconds=0.5)

    def observe(self, work: Work, seconds: float) -> None:
        """Learn nothing, but count."""
        assert seconds > 0.0
        self.num_tokens += work.tokens


@pytest.mark.parametrize("seed", range(6))
def test_every_request_gets_the_logits_it_gets_alone(
    loaded: LoadedModel, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer(monkeypatch, list(ADDRESSING)[seed % len(ADDRESSING)])
    rng = np.random.default_rng(seed)
    harness = EngineHarness(
        loaded,
        max_num_batched_tokens=int(rng.integers(5, 40)),
        max_num_seqs=int(rng.integers(2, 9)),
        max_live_edits=int(rng.integers(4, 9)),
        num_kv_blocks=int(rng.integers(14, 30)),  # few: requests preempt each other
    )
    harness.core._meter = machine = _AnyMachine(rng)  # type: ignore[assignment]
    traffic = random_traffic(harness, rng, count=10)
    sinks = harness.run(*(item.traffic for item in traffic))
    assert machine.num_tokens > sum(len(sink.token_ids) for sink in sinks)
    bare = tiny_model(loaded.layout.family.removesuffix("_text"))

    for item, sink in zip(traffic, sinks, strict=True):
        prompt, produced = item.request.prompt_token_ids, sink.token_ids
        sampled = harness.logits.get(item.request.request_id, [])
        if not sampled:
            assert sink.errors, "only a cancelled request samples nothing"
            continue
        known = [*prompt, *produced][: len(prompt) + len(sampled) - 1]
        found = reference(bare, loaded.spec, known, len(prompt), item.steers)
        if found.gates.margin < MARGIN:
            continue  # rounding decides whether a gate is open
        want = found.logits[len(prompt) - 1 :]
        got = torch.stack(sampled)
        scale = float(want.abs().max().clamp(min=1.0))
        assert float((got - want).abs().max()) < TOLERANCE * scale, item.steers
        if not sink.errors:
            check_report(item, sink, found, len(known))


def check_report(item: SteeredTraffic, sink: RecordingSink, found: Reference, num_run: int) -> None:
    """Gate states and counts of steered tokens are those of the reference."""
    num_prompt, report = len(item.request.prompt_token_ids), sink.outputs[-1]
    steered = found.gates.steered(item.steers, 0, num_run, PositionContext(num_prompt))
    in_prompt = sum(position < num_prompt for position in steered)
    assert report.steered_tokens == SteeredTokens(in_prompt, len(steered) - in_prompt)
    for steer, state in zip(item.steers, report.gates, strict=True):
        gate = steer.intervention.gate
        if gate is None or state is None:
            assert gate is state
        elif gate.per is Per.REQUEST:
            assert state.is_open is found.gates.is_open[steer]
            assert state.score is not None
            assert (state.score > gate.threshold) is (state.is_open is (gate.opens == "above"))
        else:
            opened = found.gates.opened.get(steer, set())
            in_prompt = sum(position < num_prompt for position in opened)
            assert state == GateState(
                bool(opened), open_tokens=SteeredTokens(in_prompt, len(opened) - in_prompt)
            )


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
