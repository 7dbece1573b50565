"""What the monitor `refusal` reads before an answer begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lab.corpus import Kind, prompts
from steering.directions import Direction
from steering.sites import SitePoint

from .laboratory import Laboratory
from .measures import Rate

_KINDS: Final[tuple[Kind, ...]] = (
    "ordinary",
    "hard_negative",
    "restricted_framed",
    "restricted_direct",
)


@dataclass(frozen=True, slots=True)
class Reading:
    """Scores on the last prompt token of one kind of prompt, in units of the activation.

    Attributes:
        mean: Of the scores.
        deviation: Their standard deviation.
        above: How many lie above the midpoint.
    """

    mean: float
    deviation: float
    above: Rate


@dataclass(frozen=True, slots=True)
class Monitoring:
    """Scores h . v / |v| after a layer.

    Attributes:
        layer: Where.
        midpoint: Halfway between the two means the direction was fitted from.
        readings: By kind of test prompt.
    """

    layer: int
    midpoint: float
    readings: Mapping[Kind, Reading]


def read_monitor(laboratory: Laboratory, direction: Direction, count: int) -> Monitoring:
    """Read a mean-difference direction with a reference on test prompts of each kind."""
    layer = direction.layers[0]
    point = SitePoint(layer, direction.site)
    tensors = direction.at(layer)
    length = tensors["vector"].norm()
    unit = tensors["vector"] / length
    midpoint = float(tensors["reference"] @ unit + length / 2)
    readings: dict[Kind, Reading] = {}
    for kind in _KINDS:
        scores = laboratory.activations(prompts("test", kind, count), [point])[point] @ unit
        above = Rate(int((scores > midpoint).sum()), len(scores))
        readings[kind] = Reading(float(scores.mean()), float(scores.std()), above)
    return Monitoring(layer, midpoint, readings)
