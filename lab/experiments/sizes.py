"""How many prompts an experiment looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Sizes"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Counts of prompts and of random draws.

    Attributes:
        fit: Training prompts of each set a direction is fitted from.
        validation: Validation prompts of each kind that something is chosen on.
        test: Test prompts of each kind that a row of a table is measured on.
        texts: Reference texts of the test split scored for perplexity and KL divergence.
        draws: Random directions a control averages over.
        layers: Layers a search goes through; None means all.
        settings: How many of each list of strengths, ranks and the like are tried; None means
            all.
    """

    fit: int = 128
    validation: int = 30
    test: int = 150
    texts: int = 100
    draws: int = 3
    layers: tuple[int, ...] | None = None
    settings: int | None = None

    def depths(self, num_layers: int) -> tuple[int, ...]:
        """The layers a search goes through."""
        return tuple(range(num_layers)) if self.layers is None else self.layers

    def some(self, settings: tuple[_T, ...]) -> tuple[_T, ...]:
        """The settings of a list that a search goes through."""
        return settings[: self.settings]
