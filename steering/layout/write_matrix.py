"""The matrices whose output is added to the residual stream."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from steering.errors import UnsupportedArchitectureError
from steering.sites import SitePoint

__all__ = ["WriteMatrix", "is_conv1d"]


def is_conv1d(module: nn.Module) -> bool:
    """Whether `module` is GPT-2's Conv1D: a linear map that stores its weight transposed."""
    return type(module).__name__ == "Conv1D"


@dataclass(frozen=True, eq=False)
class WriteMatrix:
    """One parameter that writes to the residual stream, or a stack of them, one per expert.

    Attributes:
        point: Where its output is: `attn_out`, `mlp_out`, or `embed` of layer 0.
        module: The module that owns the parameter.
        parameter: Its name there.
        is_transposed: Whether it is stored as [..., d_in, d_out].
    """

    point: SitePoint
    module: nn.Module
    parameter: str
    is_transposed: bool

    @property
    def weight(self) -> Tensor:
        """W [d_out, d_in], or [experts, d_out, d_in]: a view of the parameter, y = x W^T.

        Raises:
            UnsupportedArchitectureError: The parameter is quantised.
        """
        stored: Tensor = getattr(self.module, self.parameter)
        if not stored.is_floating_point() or stored.ndim < 2:
            raise UnsupportedArchitectureError(
                f"{self.parameter!r} at {self.point.site.value!r} of layer {self.point.layer} is "
                f"{stored.dtype} of shape {list(stored.shape)}; expected a floating point matrix. "
                "Load the model without quantisation to read its weights"
            )
        return stored.mT if self.is_transposed else stored

    @property
    def bias(self) -> Tensor | None:
        """c [d_out] of y = x W^T + c, or None."""
        found: Tensor | None = getattr(self.module, "bias", None)
        return found
