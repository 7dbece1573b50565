"""Random gates on interventions, for tests of the kernel and the engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from steering.directions import Direction, DirectionKind
from steering.documents import Gate, Measure, Per, Scope, resolve_layers
from steering.model_spec import ModelSpec
from steering.plan import Steer
from steering.sites import Site, SitePoint

from .samples import make_direction

__all__ = ["LATE_SCOPES", "with_request_gate", "with_token_gate"]

LATE_SCOPES: list[dict[str, Any]] = [
    {"tokens": ["last_prompt", "generated"]},
    {"tokens": "last_prompt"},
    {"tokens": "generated"},
    {"prompt_indices": [-1], "generated_windows": [[0, 3]]},
    {"windows": [[0, 40]], "exclude": {"tokens": "prompt"}},
]

_PROBES = (Measure.LOGIT, Measure.PROBABILITY)
_VECTORS = (DirectionKind.VECTOR, DirectionKind.PLANE, DirectionKind.PROBE)


def with_token_gate(steer: Steer, spec: ModelSpec, rng: np.random.Generator) -> Steer:
    """The steer with a gate that reads where it acts, or earlier; hard or soft."""
    asked = steer.intervention
    site = asked.site or steer.direction.site
    layers = resolve_layers(asked.layers, steer.direction.layers, spec.num_layers)
    measure = _pick([m for m in Measure if m is not Measure.CONDITION], rng)
    document: dict[str, Any] = {"per": "token"}
    point, stored = SitePoint(layers[0], site), layers
    if rng.random() < 0.5:
        point = _pick([p for p in _points(spec) if p.rank <= point.rank], rng)
        document["layer"], stored = point.layer, (point.layer,)
    if rng.random() < 0.3:
        document["steepness"] = float(rng.uniform(0.5, 4.0))
    return _with_gate(steer, document, measure, point.site, stored, spec, rng)


def with_request_gate(steer: Steer, spec: ModelSpec, rng: np.random.Generator) -> Steer:
    """The steer with a gate that is decided on the prompt, anywhere in the model."""
    measure = _pick(list(Measure), rng)
    point = _pick(_points(spec), rng)
    document: dict[str, Any] = {"per": "request"}
    if rng.random() < 0.5:
        document["layer"] = point.layer
    if rng.random() < 0.7:
        document["token"] = "mean" if rng.random() < 0.5 else "last"
    scope = Scope.from_dict(_pick(LATE_SCOPES, rng))
    late = replace(steer, intervention=steer.intervention.model_copy(update={"scope": scope}))
    return _with_gate(late, document, measure, point.site, (point.layer,), spec, rng)


def _with_gate(
    steer: Steer,
    document: dict[str, Any],
    measure: Measure,
    site: Site,
    layers: tuple[int, ...],
    spec: ModelSpec,
    rng: np.random.Generator,
) -> Steer:
    kind = DirectionKind.PROBE if measure in _PROBES else _pick(list(_VECTORS), rng)
    direction = make_direction(kind, site, layers, spec, seed=int(rng.integers(1 << 30)))
    spread = {Measure.COSINE: 0.15, Measure.CONDITION: 0.3}.get(measure, 0.5)
    threshold = float(np.clip(rng.normal() * spread, -0.9, 0.9))
    document |= {
        "direction": direction.reference,
        "measure": measure.value,
        "opens": "above" if rng.random() < 0.5 else "below",
        "threshold": (threshold + 1) / 2 if measure is Measure.PROBABILITY else threshold,
    }
    gate = Gate.from_dict(document)
    assert gate.per is Per(document["per"])
    return replace(
        steer,
        intervention=steer.intervention.model_copy(update={"gate": gate}),
        gate_direction=_scaled(direction, rng),
    )


def _scaled(direction: Direction, rng: np.random.Generator) -> Direction:
    """Of another length: only measures of probes may tell."""
    if direction.kind is DirectionKind.PROBE:
        return direction
    factor = float(rng.uniform(0.2, 5.0))
    return replace(direction, tensors={k: factor * v for k, v in direction.tensors.items()})


def _points(spec: ModelSpec) -> list[SitePoint]:
    """Everywhere; those of one layer alone only there."""
    only = {Site.EMBED: 0, Site.FINAL: spec.num_layers - 1}
    return [
        SitePoint(layer, site)
        for layer in range(spec.num_layers)
        for site in Site
        if site not in spec.unavailable_sites and only.get(site, layer) == layer
    ]


def _pick(items: Any, rng: np.random.Generator) -> Any:
    return items[int(rng.integers(len(items)))]
