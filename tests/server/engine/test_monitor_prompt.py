"""Monitors over the whole prompt read what a capture sees, whatever the chunks and the cache."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from server.engine.loading import LoadedModel
from server.engine.reading import capture_requests
from server.engine.request import CaptureRequest, GenerationRequest, Pooling
from steering.directions import Direction, DirectionKind
from steering.documents import Intervention, Monitor
from steering.plan import MonitorUse, Steer, SteeringPlan, compile_plan
from steering.sites import Site, SitePoint

from .harness import EngineHarness, RecordingSink, load_tiny

PROMPT = tuple(range(5, 28))
POINTS = (SitePoint(0, Site.RESID_MID), SitePoint(2, Site.HEADS), SitePoint(3, Site.FINAL))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny("llama", tmp_path_factory.mktemp("llama"))


def probes(loaded: LoadedModel) -> list[MonitorUse]:
    generator = torch.Generator().manual_seed(3)
    uses = []
    for layer, site in POINTS:
        weight = torch.randn(loaded.spec.width(site), generator=generator)
        tensors = {"weight": weight, "bias": torch.tensor([0.5])}
        direction = Direction(f"p{layer}", DirectionKind.PROBE, site, (layer,), tensors)
        monitor = Monitor.from_dict({"direction": direction.name})
        uses.append(MonitorUse(monitor, direction))
    return uses


def plan(loaded: LoadedModel, strength: float) -> SteeringPlan:
    vector = torch.linspace(-1.0, 1.0, loaded.spec.hidden_size)
    direction = Direction("v", DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector": vector})
    document = {"operation": "add", "direction": "v", "strength": strength}
    steers = [Steer(Intervention.from_dict(document), direction)] if strength else []
    return compile_plan(steers, probes(loaded), loaded.spec)


def traced(harness: EngineHarness, steering: SteeringPlan, max_tokens: int) -> GenerationRequest:
    return replace(harness.request(PROMPT, steering, max_tokens=max_tokens), monitor_prompt=True)


def expected(harness: EngineHarness, steering: SteeringPlan, ids: tuple[int, ...]) -> list[object]:
    """Scores from whole captured activations under the same steering, prompt boundary included."""
    asked = CaptureRequest(
        "c",
        (ids,),
        POINTS,
        Pooling.ALL,
        plan=replace(steering, monitors=()),
        steering_prompt_tokens=(len(PROMPT),),
    )
    [sink] = harness.run(*capture_requests(asked))
    return [
        (sink.activations[monitor.point] @ monitor.vector + monitor.bias).numpy()
        for monitor in steering.monitors
    ]


def check(harness: EngineHarness, steering: SteeringPlan, sink: RecordingSink) -> None:
    ids = (*PROMPT, *sink.token_ids)
    wanted = expected(harness, steering, ids)
    num_run = max(len(ids) - 1, len(PROMPT)) if sink.token_ids else len(ids)
    for reading, scores in zip(sink.outputs[-1].monitors, wanted, strict=True):
        assert reading.positions == tuple(range(num_run))
        np.testing.assert_allclose(reading.scores, scores[:num_run], atol=2e-4)  # type: ignore[index]


@pytest.mark.parametrize("strength", [0.0, 2.0])
@pytest.mark.parametrize("max_tokens", [0, 5])
@pytest.mark.parametrize("chunk", [4, 64])
def test_readings_equal_captures(
    loaded: LoadedModel, strength: float, max_tokens: int, chunk: int
) -> None:
    harness = EngineHarness(loaded, max_num_batched_tokens=chunk)
    steering = plan(loaded, strength)
    [sink] = harness.run(traced(harness, steering, max_tokens))
    check(harness, steering, sink)


def test_a_cached_prefix_is_read_all_the_same(loaded: LoadedModel) -> None:
    harness, steering = EngineHarness(loaded), plan(loaded, 0.0)
    first, second = (harness.run(traced(harness, steering, 3))[0] for _ in range(2))
    assert second.outputs[-1].num_cached_tokens == 0
    assert first.outputs[-1].monitors == second.outputs[-1].monitors


def test_without_it_the_prompt_is_not_read(loaded: LoadedModel) -> None:
    harness, steering = EngineHarness(loaded), plan(loaded, 0.0)
    [sink] = harness.run(harness.request(PROMPT, steering, max_tokens=3))
    reading = sink.outputs[-1].monitors[0]
    assert reading.positions == tuple(range(len(PROMPT) - 1, len(PROMPT) + 2))
