"""Edits of one weight along a direction: removing, amplifying, rank-one injection."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(direction: Tensor) -> Tensor:
    """The direction at length 1, float64 [d]."""
    exact = direction.to(torch.float64)
    length: Tensor = exact / exact.norm()
    return length


def amplify(weight: Tensor, direction: Tensor, alpha: float) -> Tensor:
    """W' = (I + alpha s s^T) W, s the unit direction; a bias is a column of W.

    Args:
        weight: W [..., d, d_in] of any float dtype, or a bias as [d, 1].
        direction: [d], of any length but zero.
        alpha: What is added of the component along s; -1 removes it.

    Returns:
        W' in float32, or float64 where W is; a new tensor.
    """
    exact = weight.to(torch.float64)
    s = unit(direction)
    folded = exact + alpha * s[:, None] * (s @ exact)[..., None, :]
    return folded.to(torch.promote_types(weight.dtype, torch.float32))


def orthogonalize(weight: Tensor, direction: Tensor) -> Tensor:
    """W' = (I - s s^T) W: nothing is written along the direction any more.

    Source: Arditi et al. 2024, arXiv:2406.11717 (weight orthogonalisation), which treats biases
    the same way.
    """
    return amplify(weight, direction, -1.0)


def mean_row(weight: Tensor) -> Tensor:
    """w = (1 / d) sum_i W[i, :], so that w^T x = mean(W x); not normalised.

    weight [..., d, d_in] of any float dtype. Returns float64 [..., d_in].
    """
    return weight.to(torch.float64).mean(dim=-2)


def rosi(weight: Tensor, direction: Tensor, alpha: float) -> Tensor:
    """W' = W + alpha s w^T, s the unit direction and w the mean of the rows of W.

    The output gains alpha mean(W x) s: a push whose sign is that of mean(W x), token by token,
    which nothing in the construction fixes. A bias stays as it is.

    Args:
        weight: W [..., d, d_in] of any float dtype; leading dimensions are experts.
        direction: [d], of any length but zero.
        alpha: Strength. The push relative to W is about alpha / d for weights without structure.

    Returns:
        W' in float32, or float64 where W is; a new tensor.

    Source: ROSI, arXiv:2508.20766, equation 6.
    """
    update = alpha * unit(direction)[:, None] * mean_row(weight)[..., None, :]
    return (weight.to(torch.float64) + update).to(_precise(weight))


def rosi_calibrated(weight: Tensor, direction: Tensor, alpha: float, mean_output: float) -> Tensor:
    """`rosi` with alpha sign(mean_output): on average the push is along the direction.

    Not part of the paper. `mean_output` is E[mean(W x)] over calibration tokens, without the bias;
    only its sign counts. The other arguments are those of `rosi`.
    """
    sign = (mean_output > 0) - (mean_output < 0)
    return rosi(weight, direction, alpha * sign)


def _precise(weight: Tensor) -> torch.dtype:
    return torch.promote_types(weight.dtype, torch.float32)
