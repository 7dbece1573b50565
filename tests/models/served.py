"""A family served by the engine, against the same model in plain transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from server.engine.loading import LoadedModel
from steering.documents import Operation, PositionContext
from steering.layout import Layout
from steering.plan import Steer, compile_plan
from steering.sites import READ_ONLY_SITES, Site
from tests.server.engine.harness import EngineHarness, load_tiny_model
from tests.steering.gate_oracle import GateOracle
from tests.steering.oracle_runtime import OracleRuntime
from tests.steering.samples import random_steer

from .by_hand import steered_logits
from .families import FAMILIES_BY_NAME, family_model

__all__ = ["served_errors"]


def _steers_of(operation: Operation, loaded: LoadedModel, seed: int) -> list[Steer]:
    """The operation at every site that the family offers it at, alternating between layers."""
    rng = np.random.default_rng(seed)
    spec = loaded.spec
    steers = []
    for number, site in enumerate(Site):
        if site in spec.unavailable_sites or site in READ_ONLY_SITES:
            continue
        if operation is Operation.SCALE_HEADS and site is not Site.HEADS:
            continue
        if operation is Operation.RANK_ONE and site not in _rank_one_sites(loaded):
            continue
        layer = 0 if site is Site.EMBED else number % spec.num_layers
        steers.append(random_steer(operation, site, (layer,), spec, rng))
    return steers


def _rank_one_sites(loaded: LoadedModel) -> set[Site]:
    unknown = {p.site for p, mean in loaded.spec.write_bias_means.items() if mean is None}
    return {Site.ATTN_OUT, Site.MLP_OUT} - unknown


def served_errors(name: str, path: Path) -> tuple[Layout, dict[str, float]]:
    """The layout, and how far logits are off transformers' own, relative to the largest logit.

    Prompts of 5 and 30 tokens without steering and one for every operation, all in one batch and
    prefilled in chunks; the reference runs each alone. By label of what was done, "plain" or the
    operation.

    Args:
        name: Of the family.
        path: Where a checkpoint is written.
    """
    model, paths = family_model(name), FAMILIES_BY_NAME[name].paths
    loaded = load_tiny_model(model, path)
    harness = EngineHarness(loaded, max_num_batched_tokens=24, max_num_seqs=16)
    rng = np.random.default_rng(0)
    cases: list[tuple[str, list[int], list[Steer]]] = [
        ("plain", rng.integers(0, 256, size=5).tolist(), []),
        ("plain", rng.integers(0, 256, size=30).tolist(), []),
    ]
    for seed, operation in enumerate(Operation):
        prompt = rng.integers(0, 256, size=12).tolist()
        cases.append((operation.value, prompt, _steers_of(operation, loaded, seed)))
    requests = [
        harness.request(
            prompt, compile_plan(steers, [], loaded.spec) if steers else None, max_tokens=3
        )
        for _, prompt, steers in cases
    ]
    errors: dict[str, float] = {}
    sinks = harness.run(*requests)
    for (label, prompt, steers), request, sink in zip(cases, requests, sinks, strict=True):
        got = torch.stack(harness.logits[request.request_id])
        known = [*prompt, *sink.token_ids][: len(prompt) + len(got) - 1]
        oracle = OracleRuntime(loaded.spec, PositionContext(len(prompt)), steers, GateOracle())
        want = steered_logits(model, paths, known, oracle.edit)[len(prompt) - 1 :]
        error = float((got - want).abs().max() / want.abs().max())
        errors[label] = max(errors.get(label, 0.0), error)
    return loaded.layout, errors
