"""What an operation is compiled from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.directions import DirectionKind
from steering.interventions import Intervention
from steering.sites import SitePoint

from .edit import Response

__all__ = ["OperationContext", "identity_response"]


@dataclass(frozen=True, eq=False)
class OperationContext:
    """One intervention at one point.

    Attributes:
        intervention: What is asked.
        kind: Kind of its direction.
        tensors: The direction's tensors there, float32 CPU.
        point: Layer and site.
        width: d, of the site.
        head_dim: Width of one head, for `scale_heads`.
        resid_norm: Mean activation norm at the point for the unit `resid`; None if not measured.
        write_bias_mean: Mean of the bias of the matrix that writes to the point; 0 without one.
    """

    intervention: Intervention
    kind: DirectionKind
    tensors: Mapping[str, Tensor]
    point: SitePoint
    width: int
    head_dim: int
    resid_norm: float | None
    write_bias_mean: float


def identity_response(rank: int) -> Response:
    """phi(z) = z for `rank` rows."""
    zero = torch.zeros(rank)
    return Response(torch.ones(rank), zero, zero, zero)
