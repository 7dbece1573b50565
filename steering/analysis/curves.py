"""Curves of scores: a probe read at every token, and averages of curves of different lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steering.errors import InvalidFieldError, ShapeMismatchError

NUM_POINTS: Final = 100
"""Points of a resampled curve."""


def sigmoid(logits: ArrayLike) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), in float64, without overflow; any shape, a new array."""
    values = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, small) / (1.0 + small)


def score_table(
    activations: ArrayLike, vectors: ArrayLike, biases: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """Scores h . v + b of every token under every vector: [R, T] in float64.

    Args:
        activations: [T, d], one row per token, at one point of the model.
        vectors: [R, d]; as they are: divide by their norms for projections.
        biases: [R], of probes; None means 0.

    Raises:
        ShapeMismatchError: Not two matrices of one width, or not a bias per vector.
    """
    hidden = np.asarray(activations, dtype=np.float64)
    rows = np.asarray(vectors, dtype=np.float64)
    if hidden.ndim != 2 or rows.ndim != 2 or hidden.shape[1] != rows.shape[1]:
        raise ShapeMismatchError(
            f"vectors has shape {list(rows.shape)} and activations {list(hidden.shape)}; expected "
            "[readouts, width] and [tokens, width]",
            param="vectors",
        )
    offsets = np.zeros(len(rows)) if biases is None else np.asarray(biases, dtype=np.float64)
    if offsets.shape != (len(rows),):
        raise ShapeMismatchError(
            f"biases has shape {list(offsets.shape)}; expected [{len(rows)}], one per vector",
            param="biases",
        )
    scores: NDArray[np.float64] = rows @ hidden.T + offsets[:, None]
    return scores


class Padding(StrEnum):
    """What stands before the beginning of a curve shorter than the longest."""

    NONE = "none"
    ZERO = "zero"


@dataclass(frozen=True, eq=False, slots=True)
class AlignedMean:
    """The mean of right-aligned curves.

    Attributes:
        mean: [T], T the longest curve's length; the last entry is that of all last tokens.
        counts: [T], how many curves reach back to each entry.
    """

    mean: NDArray[np.float64]
    counts: NDArray[np.int64]


def align_right(curves: Sequence[ArrayLike], *, padding: Padding = Padding.NONE) -> AlignedMean:
    """Average curves position by position, counted from their ends.

    Args:
        curves: Each [T_i], not empty.
        padding: `none` averages over the curves that reach as far; `zero` puts zeros before the
            shorter ones, as the published code does, which bends the beginning towards 0.

    Raises:
        InvalidFieldError: No curve, or an empty one.
    """
    rows = [np.asarray(curve, dtype=np.float64) for curve in curves]
    if not rows or any(row.ndim != 1 or len(row) == 0 for row in rows):
        raise InvalidFieldError(
            f"curves has {len(rows)} entries; expected one or more, none of them empty",
            param="curves",
        )
    longest = max(map(len, rows))
    total, counts = np.zeros(longest), np.zeros(longest, dtype=np.int64)
    for row in rows:
        total[longest - len(row) :] += row
        counts[longest - len(row) :] += 1
    over = counts if padding is Padding.NONE else np.full(longest, len(rows))
    return AlignedMean(total / over, counts)


def resample(curve: ArrayLike, num_points: int = NUM_POINTS) -> NDArray[np.float64]:
    """A curve [T] at `num_points` places from its first to its last token, by cubic splines.

    Shorter curves than four points take the highest degree they allow. Splines may overshoot: the
    score between a 0 and a 1 can leave [0, 1] a little.

    Raises:
        InvalidFieldError: An empty curve, or fewer than two points asked for.
    """
    from scipy.interpolate import make_interp_spline

    values = np.asarray(curve, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or num_points < 2:
        raise InvalidFieldError(
            f"curve has shape {list(values.shape)} and num_points is {num_points}; expected [T] "
            "with T of 1 or more, and 2 points or more",
            param="curve",
        )
    if len(values) == 1:
        return np.full(num_points, values[0])
    spline = make_interp_spline(np.arange(len(values)), values, k=min(3, len(values) - 1))
    sampled: NDArray[np.float64] = spline(np.linspace(0, len(values) - 1, num_points))
    return sampled
