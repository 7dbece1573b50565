"""How much there is to fit on."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SampleCounts"]


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """What is known of activations before any is read.

    Attributes:
        num_positive: Samples of the one set.
        num_negative: Samples of the other.
        width: Of a sample.
        num_layers: Layers they are read at.
        num_heads: Query heads of a layer.
    """

    num_positive: int
    num_negative: int
    width: int
    num_layers: int
    num_heads: int
