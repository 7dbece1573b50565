"""Captured decode steps: a replay gives what an eager step gives, and reads nothing but buffers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from server.engine.graphs import decode_graphs
from server.engine.loading import LoadedModel
from server.engine.outputs import StepMode
from server.engine.request import GenerationRequest
from steering.directions import Direction, DirectionKind
from steering.documents import Intervention, Monitor, Operation
from steering.plan import MonitorUse, Steer, SteeringPlan, compile_plan
from steering.sites import Site
from tests.server.engine.harness import EngineHarness, RecordingSink, load_tiny
from tests.server.engine.random_traffic import random_traffic
from tests.steering.gate_samples import with_token_gate
from tests.steering.samples import random_steer

from .recorded_graphs import RecordedGraphs

TOLERANCE = 2e-5
FAMILIES = ["llama", "gemma3", "gpt2", "qwen3_moe"]


@pytest.fixture(autouse=True)
def _capture_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_graphs, "_TIMES_SEEN", 1)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny("llama", tmp_path_factory.mktemp("llama"), pack_weights=False)


def with_graphs(loaded: LoadedModel, **changes: Any) -> tuple[EngineHarness, RecordedGraphs]:
    backend = RecordedGraphs(loaded.model, loaded.attention)
    return EngineHarness(loaded, backend=backend, **changes), backend


def modes(harness: EngineHarness) -> dict[StepMode, int]:
    stats = harness.core.stats(is_healthy=True, is_draining=False)
    return dict(stats.steps_by_mode)


def assert_same(
    eager: EngineHarness,
    graphs: EngineHarness,
    requests: list[GenerationRequest],
    sinks: tuple[list[RecordingSink], list[RecordingSink]],
) -> None:
    """The same logits, tokens, counts of steered tokens, states of gates, scores of monitors."""
    for request, one, other in zip(requests, *sinks, strict=True):
        want, got = (torch.stack(h.logits[request.request_id]) for h in (eager, graphs))
        torch.testing.assert_close(got, want, atol=TOLERANCE, rtol=TOLERANCE)
        assert one.token_ids == other.token_ids
        last, its = one.outputs[-1], other.outputs[-1]
        assert (last.steered_tokens, last.gates) == (its.steered_tokens, its.gates)


@pytest.mark.parametrize("family", FAMILIES)
def test_random_traffic_gets_what_it_gets_eagerly(
    family: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any operation, site, scope, schedule and gate, beside unsteered rows, with preemption."""
    loaded = load_tiny(family, tmp_path_factory.mktemp(family), pack_weights=False)
    replayed = 0
    for seed in range(2):
        limits: dict[str, Any] = {"num_kv_blocks": 18, "max_live_edits": 8, "max_num_seqs": 5}
        eager = EngineHarness(loaded, **limits)
        traffic = random_traffic(eager, np.random.default_rng(seed), count=9, cancel=False)
        want = eager.run(*(item.traffic for item in traffic))
        graphs, backend = with_graphs(loaded, **limits)
        got = graphs.run(*(item.traffic for item in traffic))
        assert_same(eager, graphs, [item.request for item in traffic], (want, got))
        replayed += sum(graph.num_replays for graph in backend.graphs)
    assert replayed > 8


def steers(
    loaded: LoadedModel, operation: Operation, *, gated: bool, seed: int
) -> tuple[Steer, ...]:
    rng = np.random.default_rng(seed)
    site = {Operation.SCALE_HEADS: Site.HEADS, Operation.RANK_ONE: Site.MLP_OUT}
    at = site.get(operation, Site.RESID_POST)
    steer = random_steer(operation, at, (1, 2), loaded.spec, rng, scope={"tokens": "all"})
    return (with_token_gate(steer, loaded.spec, rng) if gated else steer,)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("operation", list(Operation))
def test_every_operation_is_replayed(
    loaded: LoadedModel, operation: Operation, gated: bool
) -> None:
    """With two profiles and an unsteered row in one batch, over steps of growing contexts."""
    plans = [
        compile_plan(steers(loaded, operation, gated=gated, seed=seed), [], loaded.spec)
        for seed in (1, 2)
    ]
    eager = EngineHarness(loaded)
    requests = [
        eager.request([7, 8, 9], plans[0], max_tokens=5),
        eager.request([3], None, max_tokens=5),
        eager.request([1, 2], plans[1], max_tokens=5),
    ]
    want = eager.run(*requests)
    graphs, _ = with_graphs(loaded)  # takes the hooks over
    assert_same(eager, graphs, requests, (want, graphs.run(*requests)))
    assert modes(graphs)[StepMode.REPLAYED] >= 2
    assert modes(eager)[StepMode.REPLAYED] == 0


def ablation(loaded: LoadedModel, seed: int, **document: Any) -> SteeringPlan:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(seed))
    direction = Direction("v", DirectionKind.VECTOR, Site.RESID_POST, (0,), {"vector": vector})
    asked = {"operation": "ablate", "direction": "v", "layers": [0, 1, 2, 3]} | document
    return compile_plan([Steer(Intervention.from_dict(asked), direction)], [], loaded.spec)


def logits_of(harness: EngineHarness, *plans: SteeringPlan | None) -> list[Tensor]:
    """Logits [tokens, V] of equal prompts, one under each plan, all at once."""
    requests = [harness.request([5, 6, 7], plan, max_tokens=4) for plan in plans]
    harness.run(*requests)
    return [torch.stack(harness.logits[request.request_id]) for request in requests]


def test_a_graph_captured_before_a_profile_came_applies_it(loaded: LoadedModel) -> None:
    graphs, backend = with_graphs(loaded)
    logits_of(graphs, ablation(loaded, 0))
    captured = len(backend.graphs)
    [got] = logits_of(graphs, late := ablation(loaded, 1))
    [want], [without] = (
        logits_of(EngineHarness(loaded), late),
        logits_of(EngineHarness(loaded), None),
    )
    assert len(backend.graphs) == captured
    torch.testing.assert_close(got, want, atol=TOLERANCE, rtol=0)
    assert float((want - without).abs().max()) > 0.1


def test_tables_that_outgrow_their_room_void_what_was_captured(loaded: LoadedModel) -> None:
    graphs, backend = with_graphs(loaded, max_live_edits=64)
    logits_of(graphs, ablation(loaded, 0))
    captured = len(backend.graphs)
    plans = [ablation(loaded, seed) for seed in range(1, 40)]
    for start in range(0, len(plans), 8):  # many profiles, yet one at a time in a row
        logits_of(graphs, *plans[start : start + 8])
    [got] = logits_of(graphs, plans[7])
    [want] = logits_of(EngineHarness(loaded), plans[7])
    torch.testing.assert_close(got, want, atol=TOLERANCE, rtol=0)
    assert len(backend.graphs) > captured + 1


def test_profiles_of_a_kind_share_their_graphs(loaded: LoadedModel) -> None:
    graphs, backend = with_graphs(loaded)
    for seed in range(6):
        logits_of(graphs, ablation(loaded, seed), None, ablation(loaded, seed + 1))
    assert len(backend.graphs) == 1


def test_places_left_over_change_nothing(loaded: LoadedModel) -> None:
    """Three rows in a graph of four: of the blocks nobody has, only the spare one is written."""
    graphs, backend = with_graphs(loaded)
    plans = (ablation(loaded, 0), None, ablation(loaded, 1))
    got = logits_of(graphs, *plans)
    assert len(backend.graphs) == 1
    written = loaded.attention.caches[1].keys.any(dim=3).any(dim=2).any(dim=0)  # by block
    assert written[loaded.attention.num_blocks]
    assert int(written.sum()) == 1 + 2 * len(plans)  # each has six tokens, in blocks of four
    for mine, want in zip(got, logits_of(EngineHarness(loaded), *plans), strict=True):
        torch.testing.assert_close(mine, want, atol=TOLERANCE, rtol=0)


def test_nan_in_the_spare_block_reaches_nobody(loaded: LoadedModel) -> None:
    graphs, _ = with_graphs(loaded)
    for cache in loaded.attention.caches:
        cache.keys[:, loaded.attention.num_blocks] = torch.nan
        cache.values[:, loaded.attention.num_blocks] = torch.nan
    for got in logits_of(graphs, ablation(loaded, 0), None, None):
        assert got.isfinite().all()


def test_monitors_are_read_after_a_replay(loaded: LoadedModel) -> None:
    """Which ones may change from step to step; where they read is part of the graph."""

    def plan(seed: int) -> SteeringPlan:
        weight = torch.randn(32, generator=torch.Generator().manual_seed(seed))
        tensors = {"weight": weight, "bias": torch.tensor([0.5])}
        probe = Direction(f"p{seed}", DirectionKind.PROBE, Site.RESID_MID, (2,), tensors)
        use = MonitorUse(Monitor.from_dict({"direction": probe.name}), probe)
        return compile_plan([], [use], loaded.spec)

    def scores(harness: EngineHarness) -> list[float]:
        found = []
        for seed in range(3):
            steered = harness.request([4, 5], plan(seed), max_tokens=5)
            sink, _ = harness.run(steered, harness.request([4, 5, 6], None, max_tokens=5))
            found += [
                score
                for output in sink.outputs
                for trace in output.monitors
                for score in trace.scores
            ]
        return found

    want = scores(EngineHarness(loaded))
    graphs, backend = with_graphs(loaded)
    np.testing.assert_allclose(scores(graphs), want, atol=1e-5)
    assert len(want) >= 12
    assert len(backend.graphs) == 1


def test_what_is_no_decode_step_runs_eagerly(loaded: LoadedModel) -> None:
    graphs, _ = with_graphs(loaded)
    graphs.run(graphs.request([1, 2, 3, 4], None, max_tokens=1))
    assert modes(graphs) == {StepMode.EAGER: 1, StepMode.CAPTURED: 0, StepMode.REPLAYED: 0}
    graphs.run(graphs.request([1, 2, 3, 4], None, max_tokens=4))
    assert modes(graphs) == {StepMode.EAGER: 2, StepMode.CAPTURED: 1, StepMode.REPLAYED: 2}


def test_a_shape_is_captured_once_it_recurs(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_graphs, "_TIMES_SEEN", 3)
    graphs, _ = with_graphs(loaded)
    graphs.run(graphs.request([1, 2, 3, 4], None, max_tokens=6))
    assert modes(graphs) == {StepMode.EAGER: 3, StepMode.CAPTURED: 1, StepMode.REPLAYED: 2}


def test_a_run_that_cannot_be_captured_leaves_the_engine_eager(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing fails for it, and it is tried once."""
    graphs, backend = with_graphs(loaded)
    norm = loaded.layout.final_norm
    original = norm.forward

    def reads_back(hidden: Tensor) -> Tensor:
        if hidden.sum().item() > 1e9:
            raise AssertionError
        result: Tensor = original(hidden)
        return result

    monkeypatch.setattr(norm, "forward", reads_back)
    got = logits_of(graphs, ablation(loaded, 0), None)
    for mine, want in zip(
        got, logits_of(EngineHarness(loaded), ablation(loaded, 0), None), strict=True
    ):
        torch.testing.assert_close(mine, want, atol=TOLERANCE, rtol=0)
    assert backend.graphs == []
    assert modes(graphs)[StepMode.EAGER] == 4


def test_a_replay_that_differs_from_its_step_is_not_used(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number of the host that changes from step to step would be baked in: found at once."""
    graphs, backend = with_graphs(loaded)
    norm, calls = loaded.layout.final_norm, [0]
    original = norm.forward

    def counts(hidden: Tensor) -> Tensor:
        calls[0] += 1
        result: Tensor = original(hidden) * calls[0]
        return result

    monkeypatch.setattr(norm, "forward", counts)
    [got] = logits_of(graphs, None)
    assert len(backend.graphs) == 1
    assert got.isfinite().all()
    assert modes(graphs) == {StepMode.EAGER: 4, StepMode.CAPTURED: 0, StepMode.REPLAYED: 0}


def test_graphs_not_used_for_long_are_forgotten(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_graphs, "_MOST_GRAPHS", 2)
    graphs, backend = with_graphs(loaded)
    kept = graphs.core._runner._graphs
    assert kept is not None
    for count in (1, 2, 3, 1):
        logits_of(graphs, *[None] * count)
    assert kept.num_captured == 2
    assert len(backend.graphs) == 4  # that of one row was captured twice


def test_rows_fall_into_few_sizes() -> None:
    assert [decode_graphs.rows_with_room(n) for n in (1, 2, 3, 5, 8, 9, 17, 250)] == [
        *(1, 2, 4, 8, 8, 16, 24, 256)
    ]
