"""Paged attention on CUDA by torch's variable-length flash kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from .paged_decode import DecodeRows, paged_decode, reads_pages
from .schedule import ScheduledSequence, StepHolder, leading_decodes, paged_contexts, slots_to_write
from .spec import AttentionSpec
from .varlen_kernel import VarlenKernel, VarlenRows

_MAX_HEAD_DIM: Final = 256


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

    Where torch's kernel does not read pages, it gets contexts gathered one after the other, but for
    sequences that decode, whose pages are read by the kernel of `paged_decode`.
    """

    def __init__(self, specs: Sequence[AttentionSpec], block_size: int) -> None:
        self._device = specs[0].device
        self._block_size = block_size
        self._reads_pages = VarlenKernel.on(self._device).reads_pages
        self._decodes_pages = not self._reads_pages and reads_pages(self._device)

    @property
    def can_be_static(self) -> bool:
        """Whether a step of single tokens has a shape that contexts do not change."""
        return self._reads_pages or self._decodes_pages

    def plan(self, sequences: Sequence[ScheduledSequence]) -> VarlenStep:
        """The work of one step; sequences are packed in the order given."""
        num_decode = leading_decodes(sequences) if self._decodes_pages else 0
        rest = sequences[num_decode:]
        decode = paged_contexts(sequences[:num_decode], self._block_size) if num_decode else None
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
        rows = VarlenRows(tensors["offsets"], None, 1, max_k, lengths=lengths, table=table)
        return VarlenStep(slots, None, rows)

    def _varlen(self, sequences: Sequence[ScheduledSequence]) -> VarlenRows:
        contexts = [sequence.stop for sequence in sequences]
        num_tokens = [sequence.num_tokens for sequence in sequences]
        offsets, most = self._tensor(_offsets(num_tokens)), (max(num_tokens), max(contexts))
        if self._reads_pages:
            table, lengths = map(self._tensor, paged_contexts(sequences, self._block_size))
            return VarlenRows(offsets, None, *most, lengths=lengths, table=table)
        whole = [ScheduledSequence(s.block_table, 0, s.stop) for s in sequences]
        gathered = self._tensor(slots_to_write(whole, self._block_size))
        return VarlenRows(offsets, self._tensor(_offsets(contexts)), *most, gathered)

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
        self._kernel = VarlenKernel.on(spec.device)

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
        spec = self._spec
        return self._kernel(
            queries, self.keys, self.values, rows, scaling=spec.scaling, window=spec.window
        )


def _offsets(lengths: Sequence[int]) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
