"""Where each site is in one loaded model, and which of its matrices write there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from steering.errors import UnsupportedArchitectureError
from steering.sites import Site, SitePoint


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
        """c [d_out] of y = x W^T + c, or [experts, d_out] of a stack; None without one."""
        name = "bias" if self.parameter == "weight" else f"{self.parameter}_bias"
        found: Tensor | None = getattr(self.module, name, None)
        return found


@dataclass(frozen=True, eq=False, slots=True)
class LayerModules:
    """The parts of one decoder layer; None where the architecture has no such part.

    Attributes:
        block: The layer itself: `resid_pre` goes in, `resid_post` comes out.
        norm1: Gives `norm1`, the input of `attn`.
        attn: Attention.
        attn_write: Its output projection: `heads` goes in, `attn_out` comes out.
        attn_post_norm: Acts on `attn_out` before the add.
        norm2: Gives `norm2`, the input of `mlp`.
        mlp_first: Takes what the MLP takes: `mlp`, or the first of maps that stand in the layer.
        mlp: Gives `mlp_out`.
        mlp_post_norm: Acts on `mlp_out` before the add.
        residual_multiplier: Factor on `attn_out` and `mlp_out` (after a post-norm) in the add.
    """

    block: nn.Module
    norm1: nn.Module | None
    attn: nn.Module
    attn_write: nn.Module
    attn_post_norm: nn.Module | None
    norm2: nn.Module | None
    mlp_first: nn.Module
    mlp: nn.Module
    mlp_post_norm: nn.Module | None
    residual_multiplier: float

    @property
    def after_resid_mid(self) -> nn.Module:
        """The module that first sees `resid_mid`, the very tensor the residual keeps."""
        return self.mlp_first if self.norm2 is None else self.norm2


@dataclass(frozen=True, eq=False)
class Layout:
    """The architecture map of one loaded model; holds its modules, never changes them.

    Attributes:
        family: `model_type` of its text configuration.
        embed: The token embedding.
        layers: Its decoder layers, in order.
        final_norm: The norm before the language model head.
        hidden_size: Width of the residual stream, d.
        num_heads: Query heads per layer.
        head_dim: Width of one head.
        embedding_multiplier: Factor on `embed` before the first layer.
        has_parallel_residual: Whether attention and MLP both read the layer's input.
        unavailable_sites: Sites the architecture does not have, each with the reason.
        notes: What to know of a site in this family, for capabilities.
        write_matrices: What writes to the residual stream: by layer, attention first, then the
            MLP's (several where there are shared experts); the token embedding last.
    """

    family: str
    embed: nn.Module
    layers: tuple[LayerModules, ...]
    final_norm: nn.Module
    hidden_size: int
    num_heads: int
    head_dim: int
    embedding_multiplier: float
    has_parallel_residual: bool
    unavailable_sites: Mapping[Site, str]
    notes: Mapping[Site, str]
    write_matrices: tuple[WriteMatrix, ...]

    @property
    def num_layers(self) -> int:
        """L, the number of decoder layers."""
        return len(self.layers)

    def width(self, site: Site) -> int:
        """Width of an activation at `site`."""
        return self.num_heads * self.head_dim if site is Site.HEADS else self.hidden_size

    def has_site(self, site: Site) -> bool:
        """Whether the architecture has `site`."""
        return site not in self.unavailable_sites

    @cached_property
    def write_bias_means(self) -> Mapping[SitePoint, float | None]:
        """mean(c) of the bias c of each write matrix that has one; reads the device once each.

        None where each expert has a bias of its own, so that c depends on the token.
        """
        biases = {m.point: m.bias.detach() for m in self.write_matrices if m.bias is not None}
        return {
            point: float(bias.float().mean()) if bias.ndim == 1 else None
            for point, bias in biases.items()
        }

    @cached_property
    def layer_devices(self) -> Mapping[int, torch.device]:
        """The device each layer computes on."""
        return {
            index: next(layer.block.parameters()).device for index, layer in enumerate(self.layers)
        }
