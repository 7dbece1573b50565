"""A measured number with its confidence interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap

from lab.demo.measures import Rate

LEVEL: Final = 0.95
"""Coverage of every interval."""

_RESAMPLES: Final = 2000
_SEED: Final = 0
_DIGITS: Final = 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, the bounds of its interval, and the number of prompts or texts it rests on."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def share(cls, hits: int, n: int) -> Self:
        """`hits` of `n`, with Wilson's score interval."""
        rate = Rate(hits, n)
        return cls(rate.value, *rate.interval, n)

    @classmethod
    def mean(cls, values: ArrayLike) -> Self:
        """Mean of [N] values, with a percentile bootstrap interval over them."""
        return cls._resampled((np.asarray(values, dtype=np.float64),), np.mean)

    @classmethod
    def perplexity(cls, nats: ArrayLike, tokens: ArrayLike) -> Self:
        """exp(sum of nats / sum of tokens) over [N] texts, resampled text by text."""
        pairs = (np.asarray(nats, dtype=np.float64), np.asarray(tokens, dtype=np.float64))
        return cls._resampled(pairs, _perplexity)

    @classmethod
    def _resampled(cls, samples: Sequence[NDArray[np.float64]], statistic: Any) -> Self:
        found = bootstrap(
            samples,
            statistic,
            n_resamples=_RESAMPLES,
            paired=True,
            vectorized=True,
            method="percentile",
            confidence_level=LEVEL,
            rng=np.random.default_rng(_SEED),
        )
        low, high = found.confidence_interval
        return cls(float(statistic(*samples, axis=-1)), float(low), float(high), len(samples[0]))

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(**document)

    def to_dict(self) -> dict[str, float]:
        """JSON, rounded to what the interval can mean."""
        return {
            "value": round(self.value, _DIGITS),
            "low": round(self.low, _DIGITS),
            "high": round(self.high, _DIGITS),
            "n": self.n,
        }

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def _perplexity(
    nats: NDArray[np.float64], tokens: NDArray[np.float64], axis: int
) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.exp(nats.sum(axis=axis) / tokens.sum(axis=axis))
    return ratio
