"""What another sample of the same size might have said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from steering.errors import InvalidFieldError

from .activations import ActivationPair
from .interval import Interval
from .number_range import SHARE
from .separation import FloatArray, area_under_curve, d_prime

__all__ = ["DEFAULT_LEVEL", "bootstrap_cosine", "bootstrap_separation"]

DEFAULT_LEVEL: Final = 0.95


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
    SHARE.check(level, "level")
