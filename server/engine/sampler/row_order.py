"""Largest entries of rows, fast on either kind of device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["argmax", "largest", "nth_equal"]

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
