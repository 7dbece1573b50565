"""Draws of one index per row from probabilities, by the inverse of their running sum."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from .row_order import largest, nth_equal

__all__ = ["draw", "draw_filtered"]

_BLOCK: Final = 128
_TRIES: Final = (1024, 8192)  # on the CPU, before all entries of a row are sorted


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
        top_ps: [R] float32 in (0, 1], of what the `top_k` largest hold together.
        max_top_k: Largest of `top_ks`; bounds the sort.

    Returns:
        [R] int64. A row with NaN gives some index in range.
    """
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
