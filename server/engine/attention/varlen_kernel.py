"""`torch.nn.attention.varlen` on whichever card and in whichever version of torch there is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

import structlog
import torch
from torch import Tensor
from torch.nn.attention import activate_flash_attention_impl, current_flash_attention_impl
from torch.nn.attention.varlen import varlen_attn

_log = structlog.get_logger(__name__)

_HOPPER: Final = 9
_BLACKWELL: Final = 10
# Of a card's compute capability, where torch passes block tables on to the implementation. Its
# wrapper of version 4 refuses them on Hopper (torch/nn/attention/_fa4.py, 2.13).
_READS_PAGES: Final = {"FA3": (_HOPPER,), "FA4": (_BLACKWELL,)}


@dataclass(frozen=True, slots=True)
class VarlenRows:
    """Sequences for the kernel.

    Attributes:
        cu_seq_q: Offset of each sequence's queries, [N + 1] int32.
        cu_seq_k: Offset of each context in the keys, [N + 1] int32; None where pages are read.
        max_q: Most tokens that one sequence runs.
        max_k: Longest context, in tokens.
        gathered: Cache slots of every context in turn, [tokens] int64; None where pages are read.
        lengths: Tokens of each context, [N] int32; None where keys are gathered.
        table: Blocks of each sequence, [N, W] int32; None where keys are gathered.
    """

    cu_seq_q: Tensor
    cu_seq_k: Tensor | None
    max_q: int
    max_k: int
    gathered: Tensor | None = None
    lengths: Tensor | None = None
    table: Tensor | None = None


class VarlenKernel:
    """Causal attention of packed sequences by `varlen_attn`.

    The function has window_size and scale from torch 2.11 on; enable_gqa, seqused_k, block_table
    and num_splits from 2.12 on. In 2.11 the kernel takes fewer key than query heads without being
    told.

    Attributes:
        reads_pages: Whether it reads keys and values where they lie in the cache; else contexts
            are gathered one after the other.
    """

    def __init__(
        self,
        implementation: str | None,
        capability: int,
        function: Callable[..., Any] = varlen_attn,
    ) -> None:
        """Look at what there is.

        Args:
            implementation: Active implementation of flash attention; None means torch's own.
            capability: Major compute capability of the card.
            function: `varlen_attn` of the installed torch.
        """
        self._function = function
        known = inspect.signature(function).parameters
        self.reads_pages = {
            "seqused_k",
            "block_table",
        } <= known.keys() and capability in _READS_PAGES.get(implementation or "", ())
        self._fixed: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in known else {}

    @classmethod
    def on(cls, device: torch.device) -> VarlenKernel:
        """That of a device, with the implementation that is active now."""
        major = torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 0
        return cls(current_flash_attention_impl(), major)

    def __call__(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        rows: VarlenRows,
        *,
        scaling: float,
        window: int | None,
    ) -> Tensor:
        """Attention of query [T, H, D] over the cache, [num_blocks, block_size, Hkv, D].

        Returns [T, H, D]. A query sees the `window` keys up to its own, or all where it is None.
        """
        paged: dict[str, Any] = {}
        if rows.gathered is None:
            paged = {"seqused_k": rows.lengths, "block_table": rows.table}
        else:
            keys = keys.flatten(0, 1)[rows.gathered]
            values = values.flatten(0, 1)[rows.gathered]
        out = self._function(
            query,
            keys,
            values,
            rows.cu_seq_q,
            rows.cu_seq_k,
            rows.max_q,
            rows.max_k,
            scale=scaling,
            window_size=(-1 if window is None else window - 1, 0),
            **self._fixed,
            **paged,
        )
        assert isinstance(out, Tensor)
        return out


def activate_flash_attention(device: torch.device) -> None:
    """Use flash attention 4 from now on where it is installed (extra `gpu`) and the card can.

    Says in the log which implementation there is, and whether it reads pages.
    """
    if device.type != "cuda":
        return
    major = torch.cuda.get_device_capability(device)[0]
    is_installed = find_spec("flash_attn") is not None and find_spec("flash_attn.cute") is not None
    if is_installed and major in (_HOPPER, _BLACKWELL) and not current_flash_attention_impl():
        activate_flash_attention_impl("FA4")
    _log.info(
        "flash_attention",
        implementation=current_flash_attention_impl() or "torch",
        reads_pages=VarlenKernel.on(device).reads_pages,
        capability=major,
    )
