"""A share of prompts, with what chance makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

__all__ = ["Rate"]

_Z: Final = 1.959964  # 97.5 % quantile of the standard normal


@dataclass(frozen=True, slots=True)
class Rate:
    """`hits` of `n` prompts."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        """In [0, 1]."""
        return self.hits / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval for a binomial share.

        Source: Wilson 1927, score interval; it stays in [0, 1] and is not empty at 0 and 1.
        """
        spread = _Z * _Z / self.n
        middle = (self.value + spread / 2) / (1 + spread)
        half = math.sqrt(self.value * (1 - self.value) * spread + spread * spread / 4)
        half /= 1 + spread
        return max(0.0, middle - half), min(1.0, middle + half)
