"""A linear map on the CPU, its weight packed once in the form or forms its kernels want.

oneDNN's form, in the model's dtype, serves steps of many tokens; at a plain weight it would
rearrange the weight at every call. FBGEMM's form is float16 with sums in float32: it reads the
weight at the memory's speed, so it serves steps of few tokens, which do little else
(docs/performance.md). Its result for a row does not depend on the other rows.
"""

from __future__ import annotations

import warnings
from typing import Final

import torch
from torch import Tensor

_MOST_LOST: Final = 2.0**-12
"""Largest error of a row of weights, by its norm, in float16: an eighth of a rounding to bfloat16
where the map's result is rounded anyway."""


class LinearProduct:
    """y = x W^T + c in the dtype of x.

    Attributes:
        num_inputs: Width of x, K.
        nbytes: Bytes of the weight.
        dtype: Its dtype.
        max_float16_rows: Most rows of x that go through the float16 form; 0 at first.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, in_float16: bool = False) -> None:
        """Pack weight [N, K], bfloat16 or float32, and bias [N]; neither is kept.

        Args:
            weight: W.
            bias: c, or None.
            in_float16: Pack the float16 form too, where `keeps_in_float16`.
        """
        self.num_inputs = weight.shape[1]
        self.nbytes = weight.nbytes
        self.dtype = weight.dtype
        self.max_float16_rows = 0
        self._bias = bias
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self._float16: Tensor | None = None
        self._float16_bias: Tensor | None = None
        if in_float16 and keeps_in_float16(weight):
            self._pack_float16(weight)

    @property
    def float16_bytes(self) -> int:
        """Bytes of the float16 form."""
        return self.nbytes // self.dtype.itemsize * 2 if self.has_float16 else 0

    @property
    def has_float16(self) -> bool:
        """Whether there is a float16 form."""
        return self._float16 is not None

    def __call__(self, x: Tensor) -> Tensor:
        """Map x [..., K] to [..., N]."""
        if 0 < x.numel() <= self.max_float16_rows * self.num_inputs:
            return self.by_float16(x)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y

    def by_float16(self, x: Tensor) -> Tensor:
        """The same through the float16 form, however many rows there are."""
        assert self._float16 is not None, "the weight has no float16 form"
        y = torch.fbgemm_linear_fp16_weight_fp32_activation(
            x.to(torch.float32), self._float16, self._float16_bias
        )
        return y.to(x.dtype)

    def drop_float16(self) -> None:
        """Free the float16 form."""
        self.max_float16_rows = 0
        self._float16 = self._float16_bias = None

    def _pack_float16(self, weight: Tensor) -> None:
        # torch says once that these functions on tensors are deprecated, in favour of ones on
        # objects over the same kernel that take 9 microseconds more a call: a fifteenth of a
        # small model's step.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self._float16 = torch.fbgemm_pack_gemm_matrix_fp16(weight.to(torch.float32))
            self._float16_bias = None if self._bias is None else self._bias.to(torch.float32)
            self.by_float16(weight.new_zeros(1, self.num_inputs))


def has_float16_products() -> bool:
    """Whether this machine and this torch have FBGEMM's products of float16 weights."""
    return "fbgemm" in torch.backends.quantized.supported_engines and hasattr(
        torch, "fbgemm_linear_fp16_weight_fp32_activation"
    )


def keeps_in_float16(weight: Tensor) -> bool:
    """Whether float16 holds the weight [N, K] well enough.

    Exactly where the model computes in float32. In bfloat16 every row with an error of at most
    `_MOST_LOST` of its norm: from 2^-14 to 65504 float16 holds every bfloat16 number exactly, below
    it to within 2^-25, and above not at all.
    """
    if weight.dtype is torch.float32:
        return bool((weight.to(torch.float16).to(torch.float32) == weight).all())
    for rows in torch.split(weight, 4096):
        exact = rows.to(torch.float32)
        lost = (rows.to(torch.float16).to(torch.float32) - exact).norm(dim=1)
        if not bool((lost <= _MOST_LOST * exact.norm(dim=1)).all()):
            return False
    return True
