"""A share of prompts, with what chance makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binomtest

__all__ = ["Rate"]


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
        found = binomtest(self.hits, self.n).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)
