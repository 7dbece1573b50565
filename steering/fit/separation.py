"""How well a direction tells two sets apart, and what another sample might have said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from steering.errors import InvalidFieldError

from .activations import ActivationPair
from .options import OpenUnitInterval, check_number

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
"""Any shape, float64."""

DEFAULT_LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Separation:
    """How far the projections of two sets on a direction lie apart.

    Attributes:
        auc: Probability that a positive sample projects higher than a negative one, ties counting
            half, in [0, 1]; 0.5 is chance, below it the sign is wrong.
        d_prime: Difference of means in pooled standard deviations; None without spread.
        accuracy: Mean of both sets' shares on their side of the threshold, in [0, 1].
        threshold: Projection that was taken for the border.
    """

    auc: float
    d_prime: float | None
    accuracy: float
    threshold: float


def measure_separation(
    vector: Tensor, positive: Tensor, negative: Tensor, *, threshold: float | None = None
) -> Separation:
    """Separation of positive [N, d] from negative [M, d] along `vector` [d], in float64.

    For an honest figure measure on samples the vector was not fitted on, with the `midpoint` of
    those it was. `threshold` None takes the midpoint of these samples.

    Raises:
        SteeringError: Tensors that are not two finite matrices of one width.
    """
    pair = ActivationPair.of(negative, positive, names=("negative", "positive"))
    plus, minus = _projections(vector, pair)
    border = midpoint(vector, positive, negative) if threshold is None else threshold
    spread = float(d_prime(plus, minus))
    return Separation(
        auc=float(area_under_curve(plus, minus)),
        d_prime=spread if np.isfinite(spread) else None,
        accuracy=float(((plus > border).mean() + (minus < border).mean()) / 2),
        threshold=border,
    )


def midpoint(vector: Tensor, positive: Tensor, negative: Tensor) -> float:
    """Projection halfway between the means of the two sets."""
    pair = ActivationPair.of(negative, positive, names=("negative", "positive"))
    plus, minus = _projections(vector, pair)
    return float((plus.mean() + minus.mean()) / 2)


def area_under_curve(positive: FloatArray, negative: FloatArray, axis: int = -1) -> FloatArray:
    """Mann-Whitney U of scores [..., N] over [..., M], divided by N M."""
    from scipy.stats import rankdata

    num_positive, num_negative = positive.shape[axis], negative.shape[axis]
    ranks = rankdata(np.concatenate([positive, negative], axis=axis), axis=axis)
    own = np.take(ranks, np.arange(num_positive), axis=axis).sum(axis=axis)
    result: FloatArray = (own - num_positive * (num_positive + 1) / 2) / num_positive / num_negative
    return result


def d_prime(positive: FloatArray, negative: FloatArray, axis: int = -1) -> FloatArray:
    """Difference of means in pooled standard deviations; infinite or NaN without spread."""
    pooled = (positive.var(axis=axis, ddof=1) + negative.var(axis=axis, ddof=1)) / 2
    gap = positive.mean(axis=axis) - negative.mean(axis=axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        result: FloatArray = gap / np.sqrt(pooled)
    return result


def _projections(vector: Tensor, pair: ActivationPair) -> tuple[FloatArray, FloatArray]:
    unit = vector.detach().to("cpu", pair.source.dtype)
    unit = unit / unit.norm()
    return (pair.target @ unit).numpy(), (pair.source @ unit).numpy()


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its percentile bootstrap interval.

    Attributes:
        value: The number measured on the whole sample.
        low: Lower bound of the interval.
        high: Upper bound of the interval.
        level: Coverage asked for, in (0, 1).
        num_resamples: Number of resamples the bounds are quantiles of.
    """

    value: float
    low: float
    high: float
    level: float
    num_resamples: int


def bootstrap_separation(
    vector: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    num_resamples: int = 1000,
    level: float = DEFAULT_LEVEL,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile intervals of `auc` and `d_prime` of positive [N, d] over negative [M, d].

    The direction is held fixed and each set resampled on its own: the interval says what these
    samples say of this direction, not how the direction would differ. `d_prime` is left out where
    a resample has no spread.

    Raises:
        InvalidFieldError: A level or number of resamples outside its range.
        SteeringError: Tensors that are not two finite matrices of one width.
    """
    _check(num_resamples, level)
    pair = ActivationPair.of(negative, positive, names=("negative", "positive"))
    direction = vector.detach().to("cpu", torch.float64)
    scores = ((pair.target @ direction).numpy(), (pair.source @ direction).numpy())
    found = {
        "auc": _interval(scores, area_under_curve, num_resamples, level, seed),
        "d_prime": _interval(scores, d_prime, num_resamples, level, seed),
    }
    return {name: interval for name, interval in found.items() if interval is not None}


def bootstrap_cosine(
    positive: Tensor,
    negative: Tensor,
    *,
    fit: Callable[[Tensor, Tensor], Tensor] | None = None,
    num_resamples: int = 200,
    level: float = DEFAULT_LEVEL,
    seed: int = 0,
) -> Interval:
    """Mean cosine between the direction and those fitted to resampled sets, with its range.

    `fit(positive, negative)` returns a vector [d] and must be fast; None is the difference in
    means. `low` and `high` are percentiles of the cosines themselves. Near 1 the data settle the
    direction; in d dimensions with little data it is low although the separation is perfect.

    Raises:
        InvalidFieldError: A level or number of resamples outside its range.
        SteeringError: Tensors that are not two finite matrices of one width, or what `fit` raises.
    """
    _check(num_resamples, level)
    pair = ActivationPair.of(negative, positive, names=("negative", "positive"))
    generator = np.random.default_rng(seed)
    whole = fit(pair.target, pair.source) if fit else pair.shift
    cosines = []
    for _ in range(num_resamples):
        target, source = (_resampled(x, generator) for x in (pair.target, pair.source))
        vector = fit(target, source) if fit else target.mean(dim=0) - source.mean(dim=0)
        cosines.append(float(torch.cosine_similarity(vector.to(whole), whole, dim=0)))
    low, high = np.quantile(cosines, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean(cosines)), float(low), float(high), level, num_resamples)


def _interval(
    scores: tuple[FloatArray, FloatArray],
    statistic: Callable[..., FloatArray],
    num_resamples: int,
    level: float,
    seed: int,
) -> Interval | None:
    from scipy.stats import bootstrap

    with np.errstate(invalid="ignore"):
        found: Any = bootstrap(
            scores,
            statistic,
            n_resamples=num_resamples,
            batch=100,
            vectorized=True,
            confidence_level=level,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    value = float(statistic(*scores))
    low, high = map(float, found.confidence_interval)
    if not np.isfinite([value, low, high]).all():
        return None
    return Interval(value, low, high, level, num_resamples)


def _resampled(rows: Tensor, generator: np.random.Generator) -> Tensor:
    return rows[torch.from_numpy(generator.integers(len(rows), size=len(rows)))]


def _check(num_resamples: int, level: float) -> None:
    if num_resamples < 2:
        raise InvalidFieldError(
            f"num_resamples is {num_resamples}; expected at least 2", param="num_resamples"
        )
    check_number(OpenUnitInterval, level, "level")
