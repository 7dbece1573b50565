"""Invariants 6 and 7: hooks are installed once, never wait for the device, and cost is bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from server.engine.loading import LoadedModel
from server.engine.model_runner import ModelRunner
from steering.directions import Direction, DirectionKind
from steering.documents import Intervention, Operation
from steering.plan import Steer, SteeringPlan, compile_plan
from steering.sites import READ_ONLY_SITES, Site
from tests.steering.gate_samples import with_token_gate
from tests.steering.samples import random_steer

from .harness import EngineHarness, load_tiny


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny("llama", tmp_path_factory.mktemp("llama"), max_num_seqs=128)


class Recorder(TorchDispatchMode):
    """Counts the operations that reach the device, and knows those that wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def everything_plan(loaded: LoadedModel, *, gated: bool = False) -> SteeringPlan:
    rng = np.random.default_rng(0)
    spec, steers = loaded.spec, []
    for site in Site:
        if site in READ_ONLY_SITES:
            continue
        for operation in Operation:
            if operation is Operation.SCALE_HEADS and site is not Site.HEADS:
                continue
            if operation is Operation.RANK_ONE and site not in (Site.ATTN_OUT, Site.MLP_OUT):
                continue
            steer = random_steer(operation, site, (0,), spec, rng, scope={"tokens": "all"})
            steers.append(with_token_gate(steer, spec, rng) if gated else steer)
    return compile_plan(steers, [], spec)


def hooks_of(model: nn.Module) -> list[int]:
    return [
        handle
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
        for handle in hooks
    ]


def forwards(harness: EngineHarness, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record the model's forward alone: sampling reads back once, on purpose."""
    model = harness.loaded.model
    original = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with recorder:
            return original(*args, **kwargs)

    monkeypatch.setattr(model, "forward", forward)


@pytest.mark.parametrize("gated", [False, True])
def test_no_hook_waits_for_the_device(
    loaded: LoadedModel, gated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness, recorder = EngineHarness(loaded), Recorder()
    forwards(harness, recorder, monkeypatch)
    plan = everything_plan(loaded, gated=gated)
    harness.run(harness.request([1, 2, 3], plan), harness.request([4, 5], None))
    assert len(recorder.names) > 1000
    waits = [n for n in recorder.names if "local_scalar_dense" in n or "nonzero" in n]
    assert waits == []


def test_hooks_are_installed_once_and_do_not_change_with_requests(loaded: LoadedModel) -> None:
    harness = EngineHarness(loaded)
    before = hooks_of(loaded.model)
    harness.run(*(harness.request([1, 2, i], everything_plan(loaded)) for i in range(3)))
    assert hooks_of(loaded.model) == before


def operations(
    loaded: LoadedModel, num_profiles: int, gated: bool, monkeypatch: pytest.MonkeyPatch
) -> Counter[str]:
    """Operations of a run of 128 requests steered by so many distinct vectors in turn."""
    harness, recorder = EngineHarness(loaded, max_num_batched_tokens=4096), Recorder()
    with monkeypatch.context() as patch:
        forwards(harness, recorder, patch)
        plans = [vector_plan(loaded, seed, gated=gated) for seed in range(num_profiles)]
        harness.run(
            *(harness.request([5, 6], plans[i % num_profiles], max_tokens=2) for i in range(128))
        )
    return Counter(recorder.names)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("pair", [(1, 24), (40, 128)], ids=["dense", "gathered"])
def test_operations_per_step_do_not_grow_with_profiles(
    loaded: LoadedModel, pair: tuple[int, int], gated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (operations(loaded, count, gated, monkeypatch) for count in pair)
    assert few == many


def vector_plan(loaded: LoadedModel, seed: int, *, gated: bool = False) -> SteeringPlan:
    layers = tuple(range(loaded.spec.num_layers))
    vector = torch.randn(32, generator=torch.Generator().manual_seed(seed))
    direction = Direction("v", DirectionKind.VECTOR, Site.RESID_POST, (0,), {"vector": vector})
    document: dict[str, Any] = {"operation": "ablate", "direction": "v", "layers": list(layers)}
    if gated:
        document["gate"] = {"per": "token", "direction": "v", "threshold": 0.1 * seed}
    steer = Steer(Intervention.from_dict(document), direction, gate_direction=direction)
    return compile_plan([steer], [], loaded.spec)


def test_the_model_is_unsteered_outside_steps(loaded: LoadedModel) -> None:
    harness = EngineHarness(loaded)
    runner: ModelRunner = harness.core._runner
    harness.run(harness.request([1, 2, 3], vector_plan(loaded, 0)))
    assert runner._runtime._edits is None
