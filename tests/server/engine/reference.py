"""The reference for a whole model: plain Hugging Face, steered by the float64 oracle."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from steering.compile_plan import Steer
from steering.hooks import install_hooks
from steering.layer_selection import resolve_layers
from steering.layout import detect_layout
from steering.model_spec import ModelSpec
from steering.scopes import PositionContext
from steering.sites import Site, SitePoint
from tests.steering.oracle import steer_tokens

__all__ = ["reference_logits"]


def reference_logits(
    model: nn.Module,
    spec: ModelSpec,
    token_ids: Sequence[int],
    num_prompt_tokens: int,
    steers: Sequence[Steer],
) -> Tensor:
    """Logits [T, V] of one sequence on its own, in one forward, every edit in float64."""
    runtime = _OracleRuntime(spec, PositionContext(num_prompt_tokens), steers)
    handles = install_hooks(detect_layout(model), runtime)
    try:
        with torch.inference_mode():
            logits: Tensor = model(input_ids=torch.tensor([list(token_ids)])).logits
        return logits[0]
    finally:
        handles.remove()


class _OracleRuntime:
    def __init__(self, spec: ModelSpec, context: PositionContext, steers: Sequence[Steer]) -> None:
        self._spec = spec
        self._context = context
        self._steers = steers

    def edit(self, point: SitePoint, hidden: Tensor) -> Tensor:
        points = [point]
        if point.site is Site.RESID_POST and point.layer + 1 < self._spec.num_layers:
            points.append(SitePoint(point.layer + 1, Site.RESID_PRE))
        for logical in points:
            own = [steer for steer in self._steers if self._acts_at(steer, logical)]
            if own:
                rows = steer_tokens(hidden[0], own, logical, self._spec, 0, self._context)
                hidden = rows.to(hidden.dtype)[None]
        return hidden

    def _acts_at(self, steer: Steer, point: SitePoint) -> bool:
        site = steer.intervention.site or steer.direction.site
        layers = resolve_layers(
            steer.intervention.layers, steer.direction.layers, self._spec.num_layers
        )
        return site is point.site and point.layer in layers
