"""The reference for gates: scores in float64, from the formulas of the papers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from steering.documents import Gate, Measure, Opens, Per, PositionContext, TokenGate
from steering.plan import Steer
from steering.sites import SitePoint

__all__ = ["GateOracle", "gate_point"]


class GateOracle:
    """Decides gates of one sequence from position `start` on, and keeps what it decided.

    Attributes:
        margin: Smallest distance of any score from its threshold: near 0, rounding decides.
        opened: By steer, the positions at which its gate opened at some layer.
        is_open: By steer, whether the gate of the request is open; absent while undecided.
    """

    def __init__(self, start: int = 0) -> None:
        self._start = start
        self.margin = math.inf
        self.opened: dict[Steer, set[int]] = {}
        self.is_open: dict[Steer, bool] = {}
        self._arrived: dict[SitePoint, Tensor] = {}

    def arrive(self, point: SitePoint, hidden: Tensor) -> None:
        """Remember what came to a point, [T, d], before any edit there."""
        self._arrived[point] = hidden.to(torch.float64)

    def latch(self, steers: Sequence[Steer], num_prompt_tokens: int) -> None:
        """Decide the gates of the request from what arrived."""
        for steer in steers:
            gate = steer.intervention.gate
            if gate is None or gate.per is not Per.REQUEST:
                continue
            rows = self._arrived[gate_point(steer, None)][:num_prompt_tokens]
            row = rows.mean(dim=0) if gate.reads_whole_prompt else rows[-1]
            self.is_open[steer] = self._excess(steer, row, None) > 0

    def value(self, steer: Steer, point: SitePoint, position: int, row: Tensor) -> float:
        """How far the steer's gate is open at a position, `row` being the activation there now."""
        gate = steer.intervention.gate
        if gate is None:
            return 1.0
        if gate.per is Per.REQUEST:
            return float(self.is_open.get(steer, False))
        read = gate_point(steer, point)
        excess = self._excess(
            steer,
            row if read == point else self._arrived[read][position - self._start],
            point.layer,
        )
        if excess > 0:
            self.opened.setdefault(steer, set()).add(position)
        steepness = _steepness(gate)
        if steepness is None:
            return float(excess > 0)
        return float(torch.sigmoid(torch.tensor(steepness * excess, dtype=torch.float64)))

    def steered(
        self, steers: Sequence[Steer], start: int, stop: int, context: PositionContext
    ) -> set[int]:
        """Positions of [start, stop) on which some steer acted."""
        found: set[int] = set()
        for steer in steers:
            gate = steer.intervention.gate
            due = set(start + np.flatnonzero(steer.intervention.scope.mask(start, stop, context)))
            if gate is not None and gate.per is Per.REQUEST and not self.is_open.get(steer):
                continue
            if gate is not None and gate.per is Per.TOKEN and _steepness(gate) is None:
                due &= self.opened.get(steer, set())
            found |= due
        return found

    def _excess(self, steer: Steer, h: Tensor, layer: int | None) -> float:
        gate, direction = steer.intervention.gate, steer.gate_direction
        assert gate is not None
        assert direction is not None
        where = gate_point(steer, None if layer is None else SitePoint(layer, direction.site))
        tensors = {k: v.to(torch.float64) for k, v in direction.at(where.layer).items()}
        excess = float(_score(gate, tensors, h)) - gate.threshold
        if _steepness(gate) is None:
            self.margin = min(self.margin, abs(excess))
        return excess if gate.opens is Opens.ABOVE else -excess


def _steepness(gate: Gate) -> float | None:
    return gate.steepness if isinstance(gate, TokenGate) else None


def gate_point(steer: Steer, edited: SitePoint | None) -> SitePoint:
    """Where a steer's gate reads; per token, when it acts at `edited`."""
    gate, direction = steer.intervention.gate, steer.gate_direction
    assert gate is not None
    assert direction is not None
    layer = gate.layer
    if layer is None:
        layer = direction.layers[0] if edited is None else edited.layer
    return SitePoint(layer, gate.site or direction.site)


def _score(gate: Gate, t: Mapping[str, Tensor], h: Tensor) -> Tensor:
    c = t["weight"] if "weight" in t else t["vector"] if "vector" in t else t["basis"][0]
    match gate.measure:
        case Measure.PROJECTION:
            return h @ c / c.norm()
        case Measure.COSINE:
            return _cosine(h, c)
        case Measure.CONDITION:
            return _cosine(h, torch.tanh(torch.outer(c, c) @ h / (c @ c)))
        case Measure.LOGIT:
            return h @ c + t["bias"][0]
        case Measure.PROBABILITY:
            return torch.sigmoid(h @ c + t["bias"][0])


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(a, b, dim=0, eps=1e-300)
