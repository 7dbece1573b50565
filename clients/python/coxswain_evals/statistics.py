"""Estimates with intervals, over the items of a dataset. All intervals hold 95 %."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CONFIDENCE: Final = 0.95
_RESAMPLES: Final = 2000

Values = Mapping[str, tuple[float, float]]
"""For each item a value and a weight. A rate's value is 0 or 1; weights are 1, or token counts."""


class Statistic(StrEnum):
    """A statistic of values x with weights w."""

    RATE = "rate"  # sum x / n, of values 0 and 1
    MEAN = "mean"  # sum x w / sum w
    PERPLEXITY = "perplexity"  # exp(sum x w / sum w), of negative log-probabilities


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic of one cell.

    Attributes:
        value: The statistic; None without items.
        low: Lower end of the interval; None where there is none.
        high: Upper end of the interval; None where there is none.
        n: Number of items it is made of.
        missing: Number of items that have no value: unparsable verdicts, empty continuations.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """How a statistic differs between two cells, over the items both have.

    Attributes:
        value: The statistic of the second less that of the first.
        low: Lower end of its interval.
        high: Upper end of its interval.
        n: Number of items that both have.
        p_value: P value of McNemar's exact test, for rates; None otherwise.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    p_value: float | None = None


def estimate(values: Values, statistic: Statistic, *, seed: int, missing: int = 0) -> Estimate:
    """A statistic with its interval.

    Rates have Wilson's score interval (Wilson 1927); everything else a percentile bootstrap
    interval over items (Efron 1979), which one item does not give.
    """
    from scipy.stats import binomtest

    n = len(values)
    if n == 0:
        return Estimate(None, None, None, 0, missing)
    if statistic is Statistic.RATE:
        hits = round(sum(value for value, _ in values.values()))
        low, high = binomtest(hits, n).proportion_ci(_CONFIDENCE, method="wilson")
        return Estimate(hits / n, float(low), float(high), n, missing)
    x, w = _columns(values, list(values))
    low, high = _bootstrap((x, w), lambda x, w, axis: _of(statistic, x, w, axis), n, seed)
    return Estimate(float(_of(statistic, x, w, 0)), low, high, n, missing)


def difference(first: Values, second: Values, statistic: Statistic, *, seed: int) -> Difference:
    """How a statistic differs, second less first, paired by item.

    The interval is a percentile bootstrap over items that keeps pairs together. For rates, the p
    value is that of McNemar's exact test (McNemar 1947): of the items on which the two differ, are
    as many one way as the other?
    """
    common = [item for item in first if item in second]
    if not common:
        return Difference(None, None, None, 0)
    columns = (*_columns(first, common), *_columns(second, common))

    def gap(x: Any, w: Any, y: Any, v: Any, axis: int = -1) -> Any:
        return _of(statistic, y, v, axis) - _of(statistic, x, w, axis)

    low, high = _bootstrap(columns, gap, len(common), seed)
    p_value = _mcnemar(columns[0], columns[2]) if statistic is Statistic.RATE else None
    return Difference(float(gap(*columns, axis=0)), low, high, len(common), p_value)


def kappa(pairs: Mapping[str, tuple[float, float]], *, seed: int) -> Estimate:
    """Cohen's kappa (Cohen 1960) of two who label the same items with 0 or 1.

        kappa = (p_o - p_e) / (1 - p_e)

    p_o is the share of items they agree on, p_e the share that two would who label as often at
    random. None where that is all of them. The interval is a percentile bootstrap over items,
    without the resamples of which it is not defined.
    """
    import numpy as np

    n = len(pairs)
    if n == 0:
        return Estimate(None, None, None, 0)
    x, y = _columns(pairs, list(pairs))
    value = float(_kappa(x, y))
    if not math.isfinite(value):
        return Estimate(None, None, None, n)
    places = np.random.default_rng(seed).integers(n, size=(_RESAMPLES, n))
    resampled = _kappa(x[places], y[places])
    tail = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.percentile(resampled[np.isfinite(resampled)], [tail, 100 - tail])
    return Estimate(value, float(low), float(high), n)


def _kappa(x: NDArray[np.float64], y: NDArray[np.float64]) -> Any:
    """Kappa of the last axis; NaN where both give one and the same label throughout."""
    import numpy as np

    agreed = (x == y).mean(axis=-1)
    first, second = x.mean(axis=-1), y.mean(axis=-1)
    by_chance = first * second + (1 - first) * (1 - second)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (agreed - by_chance) / (1 - by_chance)


def _mcnemar(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    from scipy.stats import binomtest

    gained, lost = int(((x == 0) & (y == 1)).sum()), int(((x == 1) & (y == 0)).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _columns(values: Values, items: Sequence[str]) -> tuple[Any, Any]:
    import numpy as np

    table = np.array([values[item] for item in items], dtype=np.float64)
    return table[:, 0], table[:, 1]


def _of(statistic: Statistic, x: Any, w: Any, axis: int) -> Any:
    import numpy as np

    mean = (x * w).sum(axis) / w.sum(axis)
    return np.exp(mean) if statistic is Statistic.PERPLEXITY else mean


def _bootstrap(
    columns: tuple[Any, ...], statistic: Any, n: int, seed: int
) -> tuple[float | None, float | None]:
    import numpy as np
    from scipy.stats import bootstrap

    if n < 2:
        return None, None
    result = bootstrap(
        columns,
        statistic,
        n_resamples=_RESAMPLES,
        vectorized=True,
        paired=True,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = (float(end) for end in result.confidence_interval)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)
