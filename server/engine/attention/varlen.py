"""Paged attention on CUDA by torch's variable-length flash kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import current_flash_attention_impl
from torch.nn.attention.varlen import varlen_attn

from .schedule import ScheduledSequence, StepHolder, slots_to_write
from .spec import AttentionSpec

_MAX_HEAD_DIM: Final = 256


@dataclass(frozen=True, slots=True)
class VarlenStep:
    """One step's inputs, shared by every variable-length layer of one device.

    Attributes:
        slots: Cache slot of every packed token, [T] int64.
        context: The arguments that tell the kernel where keys are, which differ by kernel.
        gathered: Cache slots of every context in turn, or None where the kernel reads pages.
        cu_seq_q: Offset of each sequence in the pack, [N + 1] int32.
        max_q: Most tokens that one sequence runs.
        max_k: Longest context, in tokens.
    """

    slots: torch.Tensor
    context: dict[str, Any]
    gathered: torch.Tensor | None
    cu_seq_q: torch.Tensor
    max_q: int
    max_k: int


class VarlenPlanner:
    """Plans the steps of one CUDA device; copies a few small arrays, never waits for it.

    The kernels of flash attention 3 and later read pages; torch's own (version 2) does not, and
    gets contexts gathered one after the other.
    """

    def __init__(self, specs: Sequence[AttentionSpec], block_size: int) -> None:
        self._device = specs[0].device
        self._block_size = block_size
        self._reads_pages = current_flash_attention_impl() is not None

    def plan(self, sequences: Sequence[ScheduledSequence]) -> VarlenStep:
        """The work of one step; sequences are packed in the order given."""
        contexts = [sequence.stop for sequence in sequences]
        whole = [ScheduledSequence(s.block_table, 0, s.stop) for s in sequences]
        gathered = None
        if self._reads_pages:
            context = {
                "cu_seq_k": None,
                "seqused_k": self._tensor(np.array(contexts, dtype=np.int32)),
                "block_table": self._tensor(self._pages(sequences)),
            }
        else:
            context = {"cu_seq_k": self._tensor(_offsets(contexts))}
            gathered = self._tensor(slots_to_write(whole, self._block_size))
        num_tokens = [sequence.num_tokens for sequence in sequences]
        return VarlenStep(
            slots=self._tensor(slots_to_write(sequences, self._block_size)),
            context=context,
            gathered=gathered,
            cu_seq_q=self._tensor(_offsets(num_tokens)),
            max_q=max(num_tokens),
            max_k=max(contexts),
        )

    def _pages(self, sequences: Sequence[ScheduledSequence]) -> NDArray[np.int32]:
        lengths = [-(-sequence.stop // self._block_size) for sequence in sequences]
        pages = np.zeros((len(sequences), max(lengths)), dtype=np.int32)
        for row, sequence, length in zip(pages, sequences, lengths, strict=True):
            row[:length] = sequence.block_table[:length]
        return pages

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
        if step.gathered is not None:
            keys, values = keys[step.gathered], values[step.gathered]
        else:
            keys, values = self.keys, self.values
        out = varlen_attn(
            query[0].transpose(0, 1),
            keys,
            values,
            step.cu_seq_q,
            max_q=step.max_q,
            max_k=step.max_k,
            scale=self._spec.scaling,
            window_size=self._window,
            enable_gqa=True,
            **step.context,
        )
        assert isinstance(out, torch.Tensor)
        return out[None]


def _offsets(lengths: Sequence[int]) -> NDArray[np.int32]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
