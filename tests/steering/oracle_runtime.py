"""What the hooks of a model may call instead of the runtime: one sequence, in float64."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from steering.documents import PositionContext, resolve_layers
from steering.model_spec import ModelSpec
from steering.plan import Steer
from steering.sites import Site, SitePoint

from .gate_oracle import GateOracle
from .oracle import steer_tokens

__all__ = ["OracleRuntime"]


class OracleRuntime:
    """Steers one sequence that runs in one piece, from position `start` on."""

    def __init__(
        self,
        spec: ModelSpec,
        context: PositionContext,
        steers: Sequence[Steer],
        gates: GateOracle,
        start: int = 0,
    ) -> None:
        self._spec = spec
        self._context = context
        self._steers = steers
        self._gates = gates
        self._start = start

    def edit(self, point: SitePoint, hidden: Tensor) -> Tensor:
        """hidden [..., d]: the tokens of the sequence in order, however they are shaped."""
        shape, hidden = hidden.shape, hidden.flatten(0, -2)
        points = [point]
        if point.site is Site.RESID_POST and point.layer + 1 < self._spec.num_layers:
            points.append(SitePoint(point.layer + 1, Site.RESID_PRE))
        for logical in points:
            self._gates.arrive(logical, hidden)
            own = [steer for steer in self._steers if self._acts_at(steer, logical)]
            if own:
                rows = steer_tokens(
                    hidden, own, logical, self._spec, self._start, self._context, self._gates
                )
                hidden = rows.to(hidden.dtype)
        return hidden.view(shape)

    def _acts_at(self, steer: Steer, point: SitePoint) -> bool:
        site = steer.intervention.site or steer.direction.site
        layers = resolve_layers(
            steer.intervention.layers, steer.direction.layers, self._spec.num_layers
        )
        return site is point.site and point.layer in layers
