"""Draws from rows of probabilities, and the largest entries of rows, on either kind of device."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

_BLOCK: Final = 128
_TRIES: Final = (1024, 8192)  # on the CPU, before all entries of a row are sorted


# On the CPU numpy's vectorised kernels are used: for 256 rows of 32,000 on one core its argmax
# takes 1 ms where torch's takes 19, its partition 8 where torch's topk takes 43, its sort 23 where
# torch's takes 1,221.


def argmax(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Index and value of the largest entry of each row; of equals, the first.

    rows [N, V] of any float dtype; returns [N] int64 and [N] of the rows' dtype (float32 on the
    CPU). A NaN counts as the largest, so the value is finite exactly if the row holds neither NaN
    nor infinity, and something above minus infinity.
    """
    if rows.device.type != "cpu":
        values, indices = rows.max(dim=-1)
        return indices, values
    rows = rows.detach().float()
    indices = torch.from_numpy(rows.numpy().argmax(axis=-1))
    return indices, rows.gather(1, indices[:, None])[:, 0]


def largest(rows: Tensor, count: int) -> Tensor:
    """The largest entries of each row in descending order: [N, V] float32 to [N, count]."""
    if rows.device.type != "cpu":
        return rows.topk(count, dim=-1).values
    values = rows.detach().numpy()
    start = values.shape[1] - count
    if start > 0:
        values = np.partition(values, start, axis=-1)[:, start:]
    return torch.from_numpy(np.sort(values, axis=-1)).flip(-1)


def nth_equal(rows: Tensor, values: Tensor, ordinals: Tensor) -> Tensor:
    """Index of the n-th entry (from 0) of each row that equals the row's value.

    rows [N, V] and values [N] float32, ordinals [N] int64; returns [N] int64. Where there is no
    such entry, as in rows with NaN, the index is 0.
    """
    if rows.device.type != "cpu":
        is_found = (rows == values[:, None]).cumsum(dim=-1) > ordinals[:, None]
        return is_found.to(torch.uint8).argmax(dim=-1)
    triples = zip(rows.detach().numpy(), values.numpy(), ordinals.tolist(), strict=True)
    places = [np.flatnonzero(row == value)[ordinal:] for row, value, ordinal in triples]
    return torch.tensor([int(found[0]) if len(found) else 0 for found in places])


def draw(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """One index of each row, in the order of the indices.

    Args:
        probabilities: [R, V] float32; rows need not sum to 1.
        uniforms: [R] float64 in (0, 1).

    Returns:
        [R] int64. A row with NaN gives some index in range.
    """
    rest = -probabilities.shape[-1] % _BLOCK
    padded = torch.nn.functional.pad(probabilities, (0, rest)) if rest else probabilities
    blocks = padded.view(len(padded), -1, _BLOCK)  # [R, N, B]
    sums = blocks.sum(dim=-1).double()
    # Two levels: nearly all entries are only summed, which is many times faster than a scan.
    index, left = _search(sums, uniforms * sums.sum(dim=-1))
    rows = torch.arange(len(blocks), device=blocks.device)
    within, _ = _search(blocks[rows, index].double(), left)
    return (index * _BLOCK + within).clamp(max=probabilities.shape[-1] - 1)


def draw_filtered(
    probabilities: Tensor, uniforms: Tensor, top_ks: Tensor, top_ps: Tensor, max_top_k: int
) -> Tensor:
    """One index of each row from its `top_k` largest, and of them the fewest that hold `top_p`.

    Equal probabilities are in the order of their indices, also where a limit falls between them,
    so the choice depends neither on the batch nor on how a device sorts.

    Args:
        probabilities: [R, V] float32; rows need not sum to 1.
        uniforms: [R] float64 in (0, 1).
        top_ks: [R] int64 from 1 to V.
        top_ps: [R] float32 in (0, 1], of the sum of the `top_k` largest.
        max_top_k: Largest of `top_ks`; bounds the sort.

    Returns:
        [R] int64. A row with NaN gives some index in range.
    """
    # Sorting a vocabulary on the CPU is slow, and the largest few entries nearly always decide.
    # Rows that they do not decide are tried again with more.
    tries = _TRIES if probabilities.device.type == "cpu" else ()
    drawn = torch.empty(len(probabilities), dtype=torch.int64, device=probabilities.device)
    rows = torch.arange(len(probabilities), device=probabilities.device)
    for count in (*(size for size in tries if size < max_top_k), max_top_k):
        drawn[rows], is_sure = _draw_ordered(
            probabilities[rows], uniforms[rows], top_ks[rows], top_ps[rows], count
        )
        if count == max_top_k or bool(is_sure.all()):
            break
        rows = rows[~is_sure]
    return drawn


def _draw_ordered(
    probabilities: Tensor, uniforms: Tensor, top_ks: Tensor, top_ps: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Draws from the `count` largest of each row, and whether these were enough to decide."""
    vocab_size = probabilities.shape[-1]
    ordered = largest(probabilities, count)  # [R, K]
    is_within = torch.arange(count, device=ordered.device) < top_ks[:, None]
    weights = torch.where(is_within, ordered, 0.0).double()
    cumulative = weights.cumsum(dim=-1)
    total = torch.where(top_ks < vocab_size, cumulative[:, -1], _total(probabilities))
    wanted = torch.where(top_ps < 1.0, top_ps * total, torch.inf)[:, None]
    is_kept = cumulative - weights < wanted
    is_sure = (top_ks <= count) | ((top_ks == vocab_size) & (cumulative[:, -1:] >= wanted)[:, 0])
    kept_mass = torch.where(is_kept, cumulative, 0.0).amax(dim=-1)
    place, _ = _search(torch.where(is_kept, weights, 0.0), uniforms * kept_mass)
    value = ordered.gather(1, place[:, None])  # [R, 1]
    tie = place - (ordered > value).sum(dim=-1)
    return nth_equal(probabilities, value[:, 0], tie), is_sure


def _total(probabilities: Tensor) -> Tensor:
    return probabilities.sum(dim=-1).double()


def _search(weights: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """First index whose running sum exceeds the position, never of weight 0; and what is left."""
    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1]
    positions = positions.clamp(min=0.0).minimum(total.nextafter(torch.zeros_like(total)))
    index = (cumulative <= positions[:, None]).sum(dim=-1).clamp(max=weights.shape[-1] - 1)
    before = (cumulative - weights).gather(1, index[:, None])[:, 0]
    return index, positions - before
