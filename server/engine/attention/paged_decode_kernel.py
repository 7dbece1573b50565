"""The Triton kernel of `paged_decode`; imported where it is launched, as only CUDA has Triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _rows(start, rows, is_row, columns, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rows at offsets `rows` from `start`, zero beyond WIDTH and where `is_row` is not."""
    places = start + rows[:, None] + columns[None, :]
    return tl.load(places, mask=is_row[:, None] & (columns < WIDTH)[None, :], other=0.0)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def attend_pages(  # type: ignore[no-untyped-def]
    query,
    keys,
    values,
    out,
    table,
    lengths,
    scaling,
    softcap,
    reach,
    sinks,
    query_row,
    query_head,
    key_block,
    key_slot,
    key_head,
    value_block,
    value_slot,
    value_head,
    out_row,
    out_head,
    table_row,
    PAGE: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_ROWS: tl.constexpr,
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    DV: tl.constexpr,
    DV_PADDED: tl.constexpr,
    TILE: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_WINDOW: tl.constexpr,
    HAS_CHUNKS: tl.constexpr,
    HAS_SINKS: tl.constexpr,
):
    """See `paged_decode`; strides are in elements, and `reach` is a window or a chunk."""
    row, kv_head = tl.program_id(0), tl.program_id(1)
    length = tl.load(lengths + row)
    group, d, dv = tl.arange(0, GROUP_ROWS), tl.arange(0, D_PADDED), tl.arange(0, DV_PADDED)
    head, is_head = kv_head * GROUP + group, group < GROUP
    q = _rows(query, row.to(tl.int64) * query_row + head * query_head, is_head, d, D)
    highest = tl.full([GROUP_ROWS], float("-inf"), tl.float32)
    total = tl.zeros([GROUP_ROWS], tl.float32)
    mixed = tl.zeros([GROUP_ROWS, DV_PADDED], tl.float32)
    if HAS_SINKS:  # a score without a value
        highest = tl.load(sinks + head, mask=is_head, other=0.0).to(tl.float32)
        total = tl.full([GROUP_ROWS], 1.0, tl.float32)
    first = 0
    if HAS_WINDOW:
        first = tl.maximum(length - reach, 0)
    if HAS_CHUNKS:
        first = (length - 1) // reach * reach
    for start in range(first // TILE * TILE, length, TILE):
        position = start + tl.arange(0, TILE)
        is_seen = (position < length) & (position >= first)
        block = tl.load(table + row * table_row + position // PAGE, mask=is_seen, other=0)
        block, slot = block.to(tl.int64), position % PAGE
        key_rows = block * key_block + slot * key_slot + kv_head * key_head
        value_rows = block * value_block + slot * value_slot + kv_head * value_head
        k = _rows(keys, key_rows, is_seen, d, D)
        v = _rows(values, value_rows, is_seen, dv, DV)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scaling
        if HAS_SOFTCAP:
            scores = softcap * (2.0 * tl.sigmoid(2.0 * scores / softcap) - 1.0)  # tanh
        scores = tl.where(is_seen[None, :], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, axis=1))
        weights, shrink = tl.exp(scores - higher[:, None]), tl.exp(highest - higher)
        total = total * shrink + tl.sum(weights, axis=1)
        mixed = mixed * shrink[:, None]
        mixed += tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        highest = higher
    places = row.to(tl.int64) * out_row + (head * out_head)[:, None] + dv[None, :]
    mixed = (mixed / total[:, None]).to(out.dtype.element_ty)
    tl.store(out + places, mixed, mask=is_head[:, None] & (dv < DV)[None, :])
