"""The numeric form that every operation compiles to at one point, and what it is compiled from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

import torch
from torch import Tensor

from steering.directions import DirectionKind
from steering.documents import Intervention
from steering.sites import SitePoint


class EditForm(IntEnum):
    """Which of the kernel's three forms an edit has; edits of one form share a table."""

    LOW_RANK = 0
    DIAGONAL = 1
    TURN = 2


@dataclass(frozen=True, eq=False)
class Response:
    """phi(z) = linear * z + clip * clamp(z, low, high), one of each number per rank.

    Every field is float32 [r]; `low` and `high` may be infinite.
    """

    linear: Tensor
    clip: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True, eq=False)
class Edit:
    """One intervention at one point, ready for the kernel; the gain g is kept elsewhere.

        LOW_RANK  h' = h + g [ phi(h V^T - m) C + b ]
        DIAGONAL  h' = h + g [ h * delta + b ]
        TURN      h' = h + g [ (|z| target - z) V ],  z = h V^T, rows of V orthonormal, r = 2

    followed, where `restore_norm` is set, by h' |h| / |h'| (0 / 0 = 0). Absent terms are None.
    All tensors are float32 on the CPU and are never mutated.

    Attributes:
        form: Which of the three lines above it is.
        read: V [r, d].
        offset: m [r], in units of the projection h V^T.
        response: phi.
        write: C [r, d].
        shift: b [d].
        scale: delta [d].
        target: [2], a unit vector in the plane.
        restore_norm: Whether the norm is restored.
    """

    form: EditForm = EditForm.LOW_RANK
    read: Tensor | None = None
    offset: Tensor | None = None
    response: Response | None = None
    write: Tensor | None = None
    shift: Tensor | None = None
    scale: Tensor | None = None
    target: Tensor | None = None
    restore_norm: bool = False

    @property
    def rank(self) -> int:
        """Number of rows of V, 0 without V."""
        return 0 if self.read is None else int(self.read.shape[0])

    @property
    def reads(self) -> bool:
        """Whether what it does depends on the activation, so that order matters."""
        return self.form is not EditForm.LOW_RANK or self.rank > 0 or self.restore_norm

    def digest(self) -> bytes:
        """BLAKE2b over everything that decides its numbers."""
        state = hashlib.blake2b(digest_size=16)
        state.update(f"{self.form.name}\0{self.restore_norm}\0".encode())
        phi = self.response
        bounds = () if phi is None else (phi.linear, phi.clip, phi.low, phi.high)
        named = (self.read, self.offset, self.write, self.shift, self.scale, self.target, *bounds)
        for tensor in named:
            state.update(b"-" if tensor is None else str(tuple(tensor.shape)).encode())
            state.update(b"" if tensor is None else tensor.contiguous().numpy().tobytes())
        return state.digest()

    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor it holds, but the bounds of phi, which may be infinite."""
        own = (self.read, self.offset, self.write, self.shift, self.scale, self.target)
        phi = self.response
        extra = () if phi is None else (phi.linear, phi.clip)
        return tuple(tensor for tensor in (*own, *extra) if tensor is not None)


_I = TypeVar("_I", bound=Intervention, covariant=True)


@dataclass(frozen=True, eq=False)
class OperationContext(Generic[_I]):
    """One intervention at one point.

    Attributes:
        intervention: The intervention as the request states it.
        kind: Kind of its direction.
        tensors: The direction's tensors for the point's layer, float32 CPU.
        point: The layer and site at which it acts.
        width: Width d of activations at the site.
        head_dim: Width of one head, for `scale_heads`.
        resid_norm: Mean activation norm at the point for the unit `resid`; None if not measured.
        write_bias_mean: Mean of the bias of the matrix that writes to the point; 0 without one,
            None where it depends on the token.
    """

    intervention: _I
    kind: DirectionKind
    tensors: Mapping[str, Tensor]
    point: SitePoint
    width: int
    head_dim: int
    resid_norm: float | None
    write_bias_mean: float | None


def identity_response(rank: int) -> Response:
    """phi(z) = z for `rank` rows."""
    zero = torch.zeros(rank)
    return Response(torch.ones(rank), zero, zero, zero)
