"""An affine edit of an output, folded into the weight and the bias that give the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.operations import Edit, EditForm

__all__ = ["GainedEdit", "fold_bias", "fold_weight", "is_affine", "needs_bias"]


@dataclass(frozen=True, eq=False, slots=True)
class GainedEdit:
    """An edit and the gain it has on every token."""

    edit: Edit
    gain: float


def is_affine(edit: Edit) -> bool:
    """Whether y' is an affine function of y, the same for every token."""
    is_linear = edit.response is None or not bool(edit.response.clip.any())
    return edit.form is not EditForm.TURN and is_linear and not edit.restore_norm


def needs_bias(edit: Edit) -> bool:
    """Whether it moves y = 0, which a weight alone cannot do."""
    return bool(_constant(edit).any())


def fold_weight(weight: Tensor, edits: Sequence[GainedEdit]) -> Tensor:
    """W' of y' = W' x + c' where y = W x + c and edits act on y one after the other.

        low rank  W' = W + g C^T phi (V W)
        diagonal  W' = W + g delta * W

    Args:
        weight: W [..., d, n], any columns of a weight, of any float dtype.
        edits: Affine, in order.

    Returns:
        W' in float64, a new tensor.
    """
    folded = weight.to(torch.float64, copy=True)
    for item in edits:
        folded += item.gain * _linear(item.edit, folded)
    return folded


def fold_bias(bias: Tensor, edits: Sequence[GainedEdit]) -> Tensor:
    """c' [d] in float64: the edits act on the bias as on any output, constant terms included.

    For rank-one injection the constant term takes out mean(c), so that c' = c.
    """
    folded = bias.to(torch.float64, copy=True)
    for item in edits:
        constant = _constant(item.edit)
        folded += item.gain * (_linear(item.edit, folded[:, None])[:, 0] + constant)
    return folded


def _linear(edit: Edit, columns: Tensor) -> Tensor:
    if edit.scale is not None:
        return edit.scale.to(torch.float64)[:, None] * columns
    if edit.read is None or edit.write is None or edit.response is None:
        return torch.zeros_like(columns)
    projections = edit.response.linear.to(torch.float64)[:, None] * (
        edit.read.to(torch.float64) @ columns
    )
    return edit.write.to(torch.float64).mT @ projections


def _constant(edit: Edit) -> Tensor:
    """What is added to y = 0 at gain 1: float64 [d], or a zero."""
    constant = torch.zeros((), dtype=torch.float64)
    if edit.shift is not None:
        constant = constant + edit.shift.to(torch.float64)
    if edit.offset is not None and edit.write is not None and edit.response is not None:
        scaled = edit.response.linear.to(torch.float64) * edit.offset.to(torch.float64)
        constant = constant - scaled @ edit.write.to(torch.float64)
    return constant
