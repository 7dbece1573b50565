"""The reference: interventions applied one after the other, token by token, in float64.

Written from the formulas of the papers, not from the kernel: it knows directions, interventions
and gates but neither edits nor tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steering.directions import DirectionKind
from steering.documents import Operation, PositionContext, StrengthUnit
from steering.model_spec import ModelSpec
from steering.plan import Steer
from steering.sites import SitePoint

from .gate_oracle import GateOracle

__all__ = ["steer_tokens"]


def steer_tokens(
    hidden: Tensor,
    steers: Sequence[Steer],
    point: SitePoint,
    spec: ModelSpec,
    start: int,
    context: PositionContext,
    gates: GateOracle | None = None,
) -> Tensor:
    """hidden [T, d] at positions start, start + 1, ... steered in float64.

    `gates` decides for steers that have one, and remembers.
    """
    gates = gates or GateOracle()
    rows = []
    for offset, row in enumerate(hidden.to(torch.float64)):
        for steer in steers:
            gain = _gain(steer, start + offset, context)
            if gain != 0.0:
                gain *= gates.value(steer, point, start + offset, row)
            if gain != 0.0:
                row = _apply(row, steer, point, spec, gain)
        rows.append(row)
    return torch.stack(rows)


def _gain(steer: Steer, position: int, context: PositionContext) -> float:
    asked = steer.intervention
    if not asked.scope.mask(position, position + 1, context)[0]:
        return 0.0
    factor = asked.schedule.factors(position, position + 1, context.num_prompt_tokens)[0]
    return float(asked.strength * steer.factor * factor)


def _apply(h: Tensor, steer: Steer, point: SitePoint, spec: ModelSpec, gain: float) -> Tensor:
    target = _target(h, steer, point, spec)
    result = h + gain * (target - h)
    restore = steer.intervention.restore_norm
    if restore is None:
        restore = steer.intervention.operation is Operation.SCALE_HEADS
    if restore:
        result = result * (h.norm() / result.norm()) if result.norm() > 0 else result
    return result


def _target(h: Tensor, steer: Steer, point: SitePoint, spec: ModelSpec) -> Tensor:
    """Where strength 1 takes h."""
    asked: Any = steer.intervention
    t = {name: v.to(torch.float64) for name, v in steer.direction.at(point.layer).items()}
    match asked.operation:
        case Operation.ADD:
            v = t["vector"]
            if asked.unit is StrengthUnit.RESID:
                v = v / v.norm() * spec.resid_norms[point]
            return h + v
        case Operation.ABLATE:
            return _ablate(h, steer, t)
        case Operation.SET:
            u = _unit(t)
            return h - (h @ u) * u + asked.value * u
        case Operation.CLAMP:
            u = _unit(t)
            low = -math.inf if asked.minimum is None else asked.minimum
            high = math.inf if asked.maximum is None else asked.maximum
            return h + (min(max(float(h @ u), low), high) - h @ u) * u
        case Operation.TRANSPORT:
            shape = 1.0 if asked.shape_strength is None else asked.shape_strength
            mean = 1.0 if asked.mean_strength is None else asked.mean_strength
            moved = (h @ t["basis"].T - t["offset"]) @ t["map"]
            return h + shape * moved + mean * t["shift"]
        case Operation.DIAGONAL:
            return t["scale"] * h + t["shift"]
        case Operation.ROTATE | Operation.ROTATE_TO:
            return _turn(h, steer, t)
        case Operation.SCALE_HEADS:
            heads = h.reshape(spec.num_heads, spec.head_dim)
            return (heads * t["scale"][:, None]).flatten()
        case Operation.RANK_ONE:
            bias = spec.write_bias_means.get(point, 0.0)
            return h + (h.mean() - bias) * _unit(t)


def _unit(t: dict[str, Tensor]) -> Tensor:
    v = t["weight"] if "weight" in t else t["vector"]
    return v / v.norm()


def _ablate(h: Tensor, steer: Steer, t: dict[str, Tensor]) -> Tensor:
    asked = steer.intervention
    if steer.direction.kind is DirectionKind.BASIS:
        # the orthogonal projector of a row space, by the pseudo-inverse
        projector = torch.linalg.pinv(t["basis"]) @ t["basis"]
    else:
        u = _unit(t)
        projector = torch.outer(u, u)
    reference = torch.zeros_like(h)
    if asked.reference == "stored":
        reference = t["reference"]
    elif asked.reference is not None:
        reference = float(asked.reference) * _unit(t)
    return h - (h - reference) @ projector


def _turn(h: Tensor, steer: Steer, t: dict[str, Tensor]) -> Tensor:
    first, second = t["basis"]
    b1 = first / first.norm()
    b2 = second - (second @ b1) * b1
    b2 = b2 / b2.norm()
    angle = math.radians(float(steer.intervention.angle or 0.0))
    x, y = h @ b1, h @ b2
    if steer.intervention.operation is Operation.ROTATE:
        new_x = x * math.cos(angle) - y * math.sin(angle)
        new_y = x * math.sin(angle) + y * math.cos(angle)
    else:
        length = (x**2 + y**2).sqrt()
        new_x, new_y = length * math.cos(angle), length * math.sin(angle)
    return h + (new_x - x) * b1 + (new_y - y) * b2
