"""Paged attention on CUDA by torch's variable-length flash kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import current_flash_attention_impl
from torch.nn.attention.varlen import varlen_attn

from .paged_decode import DecodeRows, paged_decode, reads_pages
from .schedule import (
    ScheduledSequence,
    StepHolder,
    decode_rows,
    leading_decodes,
    pages_of,
    slots_to_write,
)
from .spec import AttentionSpec

_MAX_HEAD_DIM: Final = 256


@dataclass(frozen=True, slots=True)
class VarlenRows:
    """Sequences for torch's variable-length kernel.

    Attributes:
        context: The arguments that tell the kernel where keys are, which differ by kernel.
        gathered: Cache slots of every context in turn, or None where the kernel reads pages.
        cu_seq_q: Offset of each sequence's queries, [N + 1] int32.
        max_q: Most tokens that one sequence runs.
        max_k: Longest context, in tokens.
    """

    context: dict[str, Any]
    gathered: torch.Tensor | None
    cu_seq_q: torch.Tensor
    max_q: int
    max_k: int


@dataclass(frozen=True, slots=True)
class VarlenStep:
    """One step's inputs, shared by every variable-length layer of one device.

    Attributes:
        slots: Cache slot of every packed token, [T] int64.
        decode: The first sequences of the pack, or None.
        rest: Those behind them, or None.
    """

    slots: torch.Tensor
    decode: DecodeRows | None
    rest: VarlenRows | None


class VarlenPlanner:
    """Plans the steps of one CUDA device; copies a few small arrays, never waits for it.

    The kernels of flash attention 3 and later read pages. Torch's own (version 2) does not: it gets
    contexts gathered one after the other, but for sequences that decode, whose pages are read by
    the kernel of `paged_decode`.
    """

    def __init__(self, specs: Sequence[AttentionSpec], block_size: int) -> None:
        self._device = specs[0].device
        self._block_size = block_size
        self._reads_pages = current_flash_attention_impl() is not None
        self._decodes_pages = not self._reads_pages and reads_pages(self._device)

    @property
    def can_be_static(self) -> bool:
        """Whether a step of single tokens has a shape that contexts do not change."""
        return self._reads_pages or self._decodes_pages

    def plan(self, sequences: Sequence[ScheduledSequence]) -> VarlenStep:
        """The work of one step; sequences are packed in the order given."""
        num_decode = leading_decodes(sequences) if self._decodes_pages else 0
        rest = sequences[num_decode:]
        decode = decode_rows(sequences[:num_decode], self._block_size) if num_decode else None
        return VarlenStep(
            slots=self._tensor(slots_to_write(sequences, self._block_size)),
            decode=None if decode is None else DecodeRows(*map(self._tensor, decode)),
            rest=self._varlen(rest) if rest else None,
        )

    def paged_step(self, tensors: Mapping[str, torch.Tensor], max_k: int) -> VarlenStep:
        """A step of sequences with one token each over tensors that others write.

        Args:
            tensors: slots [N] int64, lengths [N] int32 of at most `max_k`, table [N, W] int32 and
                offsets, 0 to N, [N + 1] int32.
            max_k: Tokens that W blocks hold.
        """
        slots, lengths, table = (tensors[name] for name in ("slots", "lengths", "table"))
        if self._decodes_pages:
            return VarlenStep(slots, DecodeRows(table, lengths), None)
        context = {"cu_seq_k": None, "seqused_k": lengths, "block_table": table}
        return VarlenStep(slots, None, VarlenRows(context, None, tensors["offsets"], 1, max_k))

    def _varlen(self, sequences: Sequence[ScheduledSequence]) -> VarlenRows:
        contexts = [sequence.stop for sequence in sequences]
        gathered = None
        if self._reads_pages:
            context = {
                "cu_seq_k": None,
                "seqused_k": self._tensor(np.array(contexts, dtype=np.int32)),
                "block_table": self._tensor(pages_of(sequences, self._block_size)),
            }
        else:
            whole = [ScheduledSequence(s.block_table, 0, s.stop) for s in sequences]
            context = {"cu_seq_k": self._tensor(_offsets(contexts))}
            gathered = self._tensor(slots_to_write(whole, self._block_size))
        num_tokens = [sequence.num_tokens for sequence in sequences]
        return VarlenRows(
            context=context,
            gathered=gathered,
            cu_seq_q=self._tensor(_offsets(num_tokens)),
            max_q=max(num_tokens),
            max_k=max(contexts),
        )

    def _tensor(self, array: NDArray[np.int32] | NDArray[np.int64]) -> torch.Tensor:
        # From pinned memory, as a copy from pageable memory would wait for the device.
        return torch.from_numpy(array).pin_memory().to(self._device, non_blocking=True)


class VarlenLayer:
    """One layer's keys and values, [num_blocks, block_size, Hkv, D], and attention over them."""

    def __init__(
        self, spec: AttentionSpec, num_blocks: int, block_size: int, holder: StepHolder[VarlenStep]
    ) -> None:
        shape = (num_blocks, block_size, spec.num_kv_heads, spec.key_dim)
        self.keys = torch.empty(shape, dtype=spec.dtype, device=spec.device)
        self.values = torch.empty(shape, dtype=spec.dtype, device=spec.device)
        self._spec = spec
        self._holder = holder
        self._window = (-1 if spec.window is None else spec.window - 1, 0)

    @staticmethod
    def supports(spec: AttentionSpec) -> bool:
        """Whether the kernel can do this layer; others go by dense products."""
        return (
            spec.device.type == "cuda"
            and spec.dtype in (torch.float16, torch.bfloat16)
            and spec.key_dim == spec.value_dim <= _MAX_HEAD_DIM
            and spec.softcap is None
            and spec.chunk is None
            and not spec.has_sinks
        )

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Write the step's keys and values to the cache, then attend.

        query [1, H, T, D]; key and value [1, Hkv, T, D]. Returns [1, T, H, D].
        """
        step = self._holder.step
        keys, values = self.keys.flatten(0, 1), self.values.flatten(0, 1)
        keys.index_copy_(0, step.slots, key[0].transpose(0, 1))
        values.index_copy_(0, step.slots, value[0].transpose(0, 1))
        queries = query[0].transpose(0, 1)  # [T, H, D]
        num_decode = 0 if step.decode is None else len(step.decode.lengths)
        parts = []
        if step.decode is not None:
            parts.append(self._decode(queries[:num_decode], step.decode))
        if step.rest is not None:
            parts.append(self._varlen(queries[num_decode:], step.rest))
        return (parts[0] if len(parts) == 1 else torch.cat(parts))[None]

    def _decode(self, queries: torch.Tensor, rows: DecodeRows) -> torch.Tensor:
        return paged_decode(queries, self.keys, self.values, rows, self._spec)

    def _varlen(self, queries: torch.Tensor, rows: VarlenRows) -> torch.Tensor:
        keys, values = self.keys, self.values
        if rows.gathered is not None:
            keys = keys.flatten(0, 1)[rows.gathered]
            values = values.flatten(0, 1)[rows.gathered]
        out = varlen_attn(
            queries,
            keys,
            values,
            rows.cu_seq_q,
            max_q=rows.max_q,
            max_k=rows.max_k,
            scale=self._spec.scaling,
            window_size=self._window,
            enable_gqa=True,
            **rows.context,
        )
        assert isinstance(out, torch.Tensor)
        return out


def _offsets(lengths: Sequence[int]) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
