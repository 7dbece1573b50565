"""Random steered requests on a model: any operation, any site, any scope, any gate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from server.engine.request import GenerationRequest
from steering.documents import Operation
from steering.model_spec import ModelSpec
from steering.plan import Steer, compile_plan
from steering.sites import READ_ONLY_SITES, Site
from tests.models import VOCAB_SIZE
from tests.steering.gate_samples import with_request_gate, with_token_gate
from tests.steering.samples import random_steer

from .harness import EngineHarness, Traffic

__all__ = ["SteeredTraffic", "random_steers", "random_traffic"]

_TEXT_TOKENS = VOCAB_SIZE - 4  # special tokens are left out


@dataclass(frozen=True)
class SteeredTraffic:
    """A request of a trace with the steers its plan was compiled from."""

    traffic: Traffic
    steers: tuple[Steer, ...]

    @property
    def request(self) -> GenerationRequest:
        return self.traffic.request


def random_steers(spec: ModelSpec, rng: np.random.Generator) -> tuple[Steer, ...]:
    """One to three interventions; several often share a site."""
    sites = [s for s in Site if s not in spec.unavailable_sites and s not in READ_ONLY_SITES]
    site = sites[int(rng.integers(len(sites)))]
    steers = []
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.3:
            site = sites[int(rng.integers(len(sites)))]
        layers = (0,) if site is Site.EMBED else (0, int(rng.integers(1, spec.num_layers)))
        operations = [op for op in Operation if _fits(op, site)]
        operation = operations[int(rng.integers(len(operations)))]
        steer = random_steer(operation, site, layers, spec, rng)
        steers.append(_perhaps_gated(steer, spec, rng))
    return tuple(steers)


def _perhaps_gated(steer: Steer, spec: ModelSpec, rng: np.random.Generator) -> Steer:
    chance = rng.random()
    if chance < 0.25:
        return with_token_gate(steer, spec, rng)
    return with_request_gate(steer, spec, rng) if chance < 0.5 else steer


def random_traffic(
    harness: EngineHarness, rng: np.random.Generator, *, count: int, cancel: bool = True
) -> list[SteeredTraffic]:
    """Requests with random prompts, half of them steered, some of them alike in prompt or plan."""
    spec = harness.loaded.spec
    shared = tuple(int(t) for t in rng.integers(0, _TEXT_TOKENS, size=13))
    plans: list[tuple[Steer, ...]] = [()]
    result = []
    for _ in range(count):
        if rng.random() < 0.5:
            plans.append(random_steers(spec, rng))
        steers = plans[int(rng.integers(len(plans)))]
        prompt = [int(t) for t in rng.integers(0, _TEXT_TOKENS, size=int(rng.integers(1, 20)))]
        if rng.random() < 0.4:
            prompt = [*shared[: int(rng.integers(1, 13))], *prompt[: int(rng.integers(1, 6))]]
        request = harness.request(
            prompt,
            compile_plan(steers, [], spec) if steers else None,
            max_tokens=int(rng.integers(1, 9)),
        )
        arrives = int(rng.integers(0, 8))
        cancelled = arrives + int(rng.integers(0, 6)) if cancel and rng.random() < 0.15 else None
        result.append(SteeredTraffic(Traffic(request, arrives, cancelled), steers))
    return result


def _fits(operation: Operation, site: Site) -> bool:
    if operation is Operation.SCALE_HEADS:
        return site is Site.HEADS
    if operation is Operation.RANK_ONE:
        return site in (Site.ATTN_OUT, Site.MLP_OUT)
    return True
