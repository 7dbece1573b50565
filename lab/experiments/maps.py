"""Maps fitted one layer after another, each with those before it acting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from lab.corpus import Kind
from lab.demo.variant import use
from steering.directions import Direction
from steering.plan import Steer, SteeringPlan, compile_plan
from steering.sites import Site, SitePoint

from .subject import Subject

__all__ = ["EVERYWHERE", "LAST", "SOURCE", "TARGET", "Fit", "stacked"]

SOURCE: Final[Kind] = "restricted_direct"
TARGET: Final[Kind] = "ordinary"
LAST: Final = "last_prompt"
EVERYWHERE: Final = "all"

Fit = Callable[[Tensor, Tensor, int], Direction]
"""From activations to reach, activations to leave and their layer."""


def stacked(
    subject: Subject,
    fit: Fit,
    operation: str,
    layers: Sequence[int],
    tokens: str,
    *,
    over_tokens: bool = False,
) -> tuple[Steer, ...]:
    """Fit at each layer from what the maps before it leave of the source prompts.

    Args:
        subject: The model.
        fit: Makes the direction of one layer.
        operation: What is done with it.
        layers: In order.
        tokens: Which tokens the maps act on, while fitting as while measuring.
        over_tokens: Fit on the mean over all tokens of a prompt instead of the last one.
    """
    steers: tuple[Steer, ...] = ()
    for layer in layers:
        plan = compile_plan(steers, [], subject.spec) if steers else None
        target = _activations(subject, TARGET, layer, None, over_tokens=over_tokens)
        source = _activations(subject, SOURCE, layer, plan, over_tokens=over_tokens)
        scope: dict[str, Any] = {"tokens": tokens}
        steers = (*steers, use(fit(target, source, layer), operation=operation, scope=scope))
    return steers


def _activations(
    subject: Subject,
    kind: Kind,
    layer: int,
    plan: SteeringPlan | None,
    *,
    over_tokens: bool,
) -> Tensor:
    point = SitePoint(layer, Site.RESID_POST)
    asked = subject.training(kind)
    if not over_tokens:
        return subject.laboratory.activations(asked, [point], plan=plan)[point]
    read = subject.laboratory.sequences(asked, [point], plan=plan)[point]
    return torch.stack([rows[1:].mean(dim=0) for rows in read])
