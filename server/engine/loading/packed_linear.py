"""Linear maps on the CPU, with weights in the layout its kernels prefer.

oneDNN rearranges a plain weight at every call; done once, decoding is a fifth to a third faster in
bfloat16, and float32 products take half the time (docs/performance.md).
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from steering.layout.layout import is_conv1d

_FREE_SHARE: Final = 4
_PACKABLE: Final = (torch.bfloat16, torch.float32)


class _PackedForward:
    """y = x W^T + c with W packed; stands in for the `forward` of one module."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y


def packs_when_free(linear_bytes: int, free_bytes: int) -> int:
    """How many bytes are packed of what could be: all, where a quarter of the free memory holds it.

    Args:
        linear_bytes: Of the weights that can be packed.
        free_bytes: Free once the model is loaded.
    """
    return linear_bytes if linear_bytes <= free_bytes // _FREE_SHARE else 0


def linear_weight_bytes(model: nn.Module) -> int:
    """Memory that `pack_linear` would take: that of the weights it copies."""
    return sum(module.weight.nbytes for module in _packable(model))


def pack_linear(model: nn.Module) -> int:
    """Give every linear map on the CPU a packed copy of its weight, and use it from now on.

    Modules keep their paths, parameters and hooks; only `forward` changes. A later change of a
    weight would not be seen.

    Returns:
        How many were packed.
    """
    found = _packable(model)
    for module in found:
        weight = module.weight.detach()
        packed = weight.t().contiguous() if is_conv1d(module) else weight
        module.forward = _PackedForward(packed, module.bias)
    return len(found)


def _packable(model: nn.Module) -> list[Any]:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return []
    return [
        module
        for module in model.modules()
        if (type(module) is nn.Linear or is_conv1d(module))
        and module.weight.device.type == "cpu"
        and module.weight.dtype in _PACKABLE
        and (module.weight.dtype is torch.float32 or _has_bfloat16())
    ]


def _has_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
