"""Random directions and interventions of every kind, for tests of the kernel and the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from steering.directions import Direction, DirectionKind
from steering.documents import Intervention, Operation
from steering.model_spec import ModelSpec
from steering.operations import OPERATION_KINDS
from steering.plan import Steer
from steering.sites import Site, SitePoint

__all__ = ["SCOPES", "make_direction", "make_spec", "random_steer"]

SCOPES: list[dict[str, Any]] = [
    {"tokens": "all"},
    {"tokens": "prompt"},
    {"tokens": "generated"},
    {"tokens": "last_prompt"},
    {"windows": [[1, 3], [5, 9]]},
    {"prompt_indices": [-1, -2, 0]},
    {"tokens": "all", "exclude": {"tokens": "last_prompt", "windows": [[0, 2]]}},
    {"tokens": "last_prompt", "generated_windows": [[0, 4]]},
]

SCHEDULES: list[dict[str, Any]] = [
    {"kind": "constant"},
    {"kind": "constant"},
    {"kind": "decay", "factor": 0.8},
    {"kind": "ramp", "start": 0.2, "end": 1.0, "tokens": 3},
]


def make_spec(num_layers: int = 3, num_heads: int = 4, head_dim: int = 4) -> ModelSpec:
    """A model of width num_heads * head_dim that never has to exist."""
    points = [SitePoint(layer, site) for layer in range(num_layers) for site in Site]
    return ModelSpec(
        name="test",
        family="test",
        fingerprint="f" * 16,
        num_layers=num_layers,
        hidden_size=num_heads * head_dim,
        num_heads=num_heads,
        head_dim=head_dim,
        resid_norms={point: 2.0 + point.layer for point in points},
        write_bias_means=dict.fromkeys(points, 0.1),
    )


def make_direction(
    kind: DirectionKind, site: Site, layers: tuple[int, ...], spec: ModelSpec, seed: int
) -> Direction:
    """A random direction of a kind, one tensor set per layer for kinds bound to layers."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    d, rank = spec.width(site), 3
    tensors: dict[str, torch.Tensor] = {}
    for layer in layers:
        made = {
            DirectionKind.VECTOR: lambda: {"vector": normal(d), "reference": normal(d)},
            DirectionKind.BASIS: lambda: {"basis": normal(rank, d), "reference": normal(d)},
            DirectionKind.TRANSPORT: lambda: {
                "basis": normal(rank, d) / d**0.5,
                "offset": normal(rank),
                "map": normal(rank, d) / d**0.5,
                "shift": normal(d),
            },
            DirectionKind.DIAGONAL: lambda: {"scale": 1 + 0.3 * normal(d), "shift": normal(d)},
            DirectionKind.PLANE: lambda: {"basis": normal(2, d)},
            DirectionKind.HEADS: lambda: {"scale": normal(spec.num_heads).abs()},
            DirectionKind.PROBE: lambda: {"weight": normal(d), "bias": normal(1)},
        }[kind]()
        tensors |= {f"{name}.{layer}": tensor for name, tensor in made.items()}
    return Direction(f"{kind.value}-{seed}", kind, site, layers, tensors, version=1)


def random_steer(
    operation: Operation,
    site: Site,
    layers: tuple[int, ...],
    spec: ModelSpec,
    rng: np.random.Generator,
    *,
    scope: dict[str, Any] | None = None,
) -> Steer:
    """An intervention with random parameters and a random direction it accepts."""
    kinds = OPERATION_KINDS[operation]
    kind = kinds[int(rng.integers(len(kinds)))]
    direction = make_direction(kind, site, layers, spec, seed=int(rng.integers(1 << 30)))
    document: dict[str, Any] = {
        "operation": operation.value,
        "direction": direction.reference,
        "strength": float(rng.uniform(0.3, 1.3)),
        "scope": scope or SCOPES[int(rng.integers(len(SCOPES)))],
        "schedule": SCHEDULES[int(rng.integers(len(SCHEDULES)))],
    }
    document |= _own_fields(operation, kind, rng)
    if operation is Operation.ADD and rng.random() < 0.5:
        document["unit"] = "resid"
    if rng.random() < 0.2:
        document["restore_norm"] = True
    return Steer(Intervention.from_dict(document), direction, factor=float(rng.uniform(0.5, 1.5)))


def _own_fields(
    operation: Operation, kind: DirectionKind, rng: np.random.Generator
) -> dict[str, Any]:
    if operation is Operation.ABLATE and kind is not DirectionKind.PROBE and rng.random() < 0.5:
        stored = kind is DirectionKind.BASIS or rng.random() < 0.5
        return {"reference": "stored" if stored else float(rng.normal())}
    if operation is Operation.SET:
        return {"value": float(rng.normal())}
    if operation is Operation.CLAMP:
        bounds = {"minimum": -0.2, "maximum": 0.3}
        return dict(list(bounds.items())[: 1 + int(rng.integers(2))])
    if operation in (Operation.ROTATE, Operation.ROTATE_TO):
        return {"angle": float(rng.uniform(-180, 180))}
    if operation is Operation.TRANSPORT:
        return {"mean_strength": float(rng.uniform(0, 1)), "shape_strength": 0.7}
    return {}
