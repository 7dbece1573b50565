"""What the heads of a model write along a direction: reads weights, changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steering.errors import SiteUnavailableError
from steering.sites import Site

from .layout import Layout

_PROBE: Final = 64.0  # so large that the norm's epsilon does not show, and exact in every dtype


@dataclass(frozen=True, eq=False, slots=True)
class FinalNorm:
    """The norm before the language model head: y = gain * (h - mean?) / scale(h) + bias.

    Attributes:
        gain: [d] float64, as it multiplies (Gemma's 1 + weight included).
        is_centred: Whether it takes the mean away (LayerNorm) or not (RMSNorm).
    """

    gain: NDArray[np.float64]
    is_centred: bool

    def fold(self, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """The direction v [d] before the norm with w . y = (h . v) / scale(h) + constant."""
        folded: NDArray[np.float64] = self.gain * weight
        return folded - folded.mean() if self.is_centred else folded

    def scale(self, hidden: NDArray[np.float64]) -> NDArray[np.float64]:
        """What divides each row of hidden [N, d]: its root mean square; epsilon is neglected."""
        seen = hidden - hidden.mean(axis=1, keepdims=True) if self.is_centred else hidden
        scales: NDArray[np.float64] = np.sqrt(np.square(seen).mean(axis=1))
        return scales


@dataclass(frozen=True, eq=False)
class AttentionReader:
    """The attention output projections and the final norm of one loaded model, read only.

    Weights never change after loading, so any thread may use it.
    """

    layout: Layout

    def check_linear(self) -> None:
        """Check that what a head adds to the residual stream is linear in the head.

        Raises:
            SiteUnavailableError: The family norms `attn_out` before it is added.
        """
        if self.layout.layers[0].attn_post_norm is not None:
            raise SiteUnavailableError(
                f"method is 'attribution', but {self.layout.family} norms 'attn_out' before adding "
                "it to the residual stream, so that heads have no shares of their own there; use "
                "method 'causal'",
                param="method",
            )

    def pull_back(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """m w W_O of every layer: <m o, w> = <z, m w W_O> for heads z that write o = z W_O^T.

        m is the factor with which the family adds o to the residual stream, mostly 1. Computed in
        float32 where the weights are.

        Args:
            vector: w [d].

        Returns:
            [L, num_heads * head_dim], float64.

        Raises:
            SiteUnavailableError: As `check_linear`.
            UnsupportedArchitectureError: The weights are quantised.
        """
        self.check_linear()
        wanted = torch.as_tensor(vector, dtype=torch.float32)
        matrices = {
            matrix.point.layer: matrix.weight
            for matrix in self.layout.write_matrices
            if matrix.point.site is Site.ATTN_OUT
        }
        with torch.inference_mode():
            rows = [
                layer.residual_multiplier * _row(wanted, matrices[index])
                for index, layer in enumerate(self.layout.layers)
            ]
        return np.stack([row.numpy() for row in rows]).astype(np.float64)

    @cached_property
    def final_norm(self) -> FinalNorm:
        """Found by what the norm makes of known vectors, so that no family's naming is guessed."""
        norm, width = self.layout.final_norm, self.layout.hidden_size
        signs = torch.ones(width)
        signs[1::2] = -1.0
        zero = _apply(norm, torch.zeros(width))
        gain = (_apply(norm, _PROBE * signs) - zero) * signs.double()
        flat = _apply(norm, torch.full((width,), _PROBE)) - zero
        is_centred = bool(flat.abs().max() < 1e-3 * gain.abs().max())
        return FinalNorm(gain.numpy(), is_centred)


def _row(vector: Tensor, weight: Tensor) -> Tensor:
    return (vector.to(weight.device) @ weight.float()).cpu()


def _apply(norm: nn.Module, vector: Tensor) -> Tensor:
    """The norm without its hooks, which belong to steps of the engine."""
    parameter: Any = next(norm.parameters())
    with torch.inference_mode():
        given = vector.to(parameter.device, parameter.dtype)[None]
        found: Tensor = norm.forward(given)[0]
        return found.double().cpu()
