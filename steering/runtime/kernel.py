"""The steering kernel: edits of many requests applied to one packed batch, on the device.

Every function is pure, works in float32 and never synchronises with the host. T is the number of
tokens, d the width and R the rows of a table. A `Selection` cuts the tokens into B blocks of b
and gives each block K rows, so a product over d costs T K d, and what profiles cost is bounded
by those that meet in a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .selection import Selection


@dataclass(frozen=True, eq=False)
class LowRankRows:
    """Rows of V and C with their offsets and responses; float32.

    Attributes:
        read: V [R, d].
        minus_offset: -m [R]; None where it is zero everywhere.
        write: C [R, d].
        linear: Coefficient of z in phi, [R]; None where it is one everywhere.
        clip: Coefficient of clamp(z, low, high) in phi, [R]; None where it is zero everywhere.
        low: [R].
        high: [R].
    """

    read: Tensor
    minus_offset: Tensor | None
    write: Tensor
    linear: Tensor | None
    clip: Tensor | None
    low: Tensor
    high: Tensor


@dataclass(frozen=True, eq=False)
class GateRows:
    """The token gates of a table's rows; float32 [R] unless said otherwise.

    Attributes:
        read: Unit vectors, or weights of probes, [R, d].
        bias: Bias of each probe; 0 for a vector.
        threshold: Threshold in units of the row's score.
        sign: 1 where the gate opens above the threshold, -1 where it opens below.
        steepness: k of a soft gate, 0 for a hard one; None where all are hard.
        is_cosine: [R] bool, rows scored by cosine; None where there are none.
        is_probability: [R] bool, rows scored by probability; None where there are none.
    """

    read: Tensor
    bias: Tensor
    threshold: Tensor
    sign: Tensor
    steepness: Tensor | None
    is_cosine: Tensor | None
    is_probability: Tensor | None


def project(
    hidden: Tensor, rows: Tensor, selection: Selection, bias: Tensor | None = None
) -> Tensor:
    """hidden [T, d] . rows [R, d] + bias [R] for the rows of each block: [B, b, K]."""
    blocks, columns = _in_blocks(hidden, selection), selection.rows(rows).mT
    if bias is None:
        return torch.bmm(blocks, columns)
    # One kernel launch in place of two: a step launches this at every point of every layer.
    return torch.baddbmm(selection.of_rows(bias), blocks, columns)


def combine(hidden: Tensor, weights: Tensor, rows: Tensor, selection: Selection) -> Tensor:
    """hidden [T, d] + weights . rows, the weights [B, b, K] as `project` returns them."""
    blocks = _in_blocks(hidden, selection)
    return torch.baddbmm(blocks, weights, selection.rows(rows)).view_as(hidden)


def low_rank(
    hidden: Tensor,
    rows: LowRankRows | None,
    rank_selection: Selection | None,
    shift: Tensor | None,
    shift_selection: Selection | None,
) -> Tensor:
    """h' = h + sum over own edits of g [ phi(h V^T - m) C + b ], all reading the same h.

    hidden [T, d] float32; shift [S, d]. Returns a new tensor.
    """
    result = hidden
    if rows is not None and rank_selection is not None:
        z = project(hidden, rows.read, rank_selection, rows.minus_offset)
        y = z if rows.linear is None else rank_selection.of_rows(rows.linear) * z
        if rows.clip is not None:
            low, high = rank_selection.of_rows(rows.low), rank_selection.of_rows(rows.high)
            y = y + rank_selection.of_rows(rows.clip) * torch.clamp(z, low, high)
        scaled = rank_selection.scaled_rows(rows.write)
        if scaled is None:
            y = _times_gains(y, rank_selection)
            result = combine(result, y, rows.write, rank_selection)
        else:  # one token: the gains stand in the rows
            result = torch.baddbmm(_in_blocks(result, rank_selection), y, scaled).view_as(hidden)
    if shift is not None and shift_selection is not None:
        total = shift_selection.sums(shift)
        if total is None:
            result = combine(result, shift_selection.gains, shift, shift_selection)
        else:
            result = result + total
    return result


def add_total(total: Tensor, hidden: Tensor) -> Tensor:
    """hidden [1, T, d] of any float dtype + total [T, d] float32, in hidden's dtype."""
    return (hidden + total).to(hidden.dtype)


def add_ranks(read: Tensor, write: Tensor, hidden: Tensor) -> Tensor:
    """h + (h V^T) C for the one token of hidden [1, 1, d] of any float dtype, in that dtype.

    read V^T [d, K] and write C [K, d] float32, the latter times its gains.
    """
    row = hidden.view(1, -1).to(torch.float32)
    return torch.addmm(row, row @ read, write).to(hidden.dtype).view_as(hidden)


def diagonal(hidden: Tensor, scale: Tensor, shift: Tensor, selection: Selection) -> Tensor:
    """h' = h + g [ h * delta + b ]; scale (delta) and shift (b) [R, d]. Returns a new tensor."""
    delta = combine(torch.zeros_like(hidden), selection.gains, scale, selection)
    return combine(hidden + hidden * delta, selection.gains, shift, selection)


def turn(hidden: Tensor, read: Tensor, target: Tensor, selection: Selection) -> Tensor:
    """h' = h + g (|z| target - z) B, z = h B^T; read [2 R, d], target [R, 2]."""
    pairs = selection.paired()
    flat = project(hidden, read, pairs)
    z = flat.view(*flat.shape[:2], -1, 2)  # [B, b, K, 2]
    length = z.norm(dim=3, keepdim=True)
    y = (length * selection.of_rows(target) - z).flatten(2)
    return combine(hidden, _times_gains(y, pairs), read, pairs)


def restore_norm(before: Tensor, after: Tensor, active: Tensor) -> Tensor:
    """after |before| / |after| where active [T] is true, after elsewhere; 0 / 0 = 0."""
    old = before.norm(dim=1, keepdim=True)
    new = after.norm(dim=1, keepdim=True)
    ratio = torch.where(new > 0, old / new, torch.zeros_like(new))
    return torch.where(active[:, None], after * ratio, after)


def gate_values(hidden: Tensor, rows: GateRows, selection: Selection) -> Tensor:
    """How far each row's gate is open on each token, from 0 to 1, shaped as the selection's gains.

    hidden [T, d] float32. With e = sign (score - threshold), a hard gate is 1[e > 0] and a soft
    one 1 / (1 + exp(-k e)). What stands where a row does not act on a token means nothing.
    """
    score = project(hidden, rows.read, selection, rows.bias)
    if rows.is_cosine is not None:
        length = hidden.norm(dim=1).view(*selection.blocks, 1)
        cosine = torch.where(length > 0, score / length, torch.zeros_like(score))
        score = torch.where(selection.of_rows(rows.is_cosine), cosine, score)
    if rows.is_probability is not None:
        is_probability = selection.of_rows(rows.is_probability)
        score = torch.where(is_probability, torch.sigmoid(score), score)
    excess = selection.of_rows(rows.sign) * (score - selection.of_rows(rows.threshold))
    hard = (excess > 0).to(torch.float32)
    if rows.steepness is None:
        return hard
    steepness = selection.of_rows(rows.steepness)
    return torch.where(steepness > 0, torch.sigmoid(steepness * excess), hard)


def _in_blocks(hidden: Tensor, selection: Selection) -> Tensor:
    return hidden.view(*selection.blocks, hidden.shape[1])


def _times_gains(y: Tensor, selection: Selection) -> Tensor:
    # Tokens of a block meet rows that are not theirs, at gain 0. Where such a row overflows on the
    # token, inf * 0 is NaN and would spread to a request that never asked for it: filled, not
    # multiplied away.
    return (y * selection.gains).masked_fill_(selection.idle, 0.0)
