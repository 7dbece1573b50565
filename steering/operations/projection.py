"""Operations on the component along a unit direction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steering.directions import DirectionKind
from steering.errors import InvalidFieldError

from .context import OperationContext, identity_response
from .edit import Edit, Response

__all__ = ["ablate", "clamp", "orthonormal", "set_projection", "unit_rows"]


def unit_rows(context: OperationContext) -> Tensor:
    """Orthonormal rows [r, d] spanning the direction: one for a vector, k for a basis.

    Raises:
        InvalidFieldError: A basis whose rows are linearly dependent.
    """
    if context.kind is not DirectionKind.BASIS:
        name = "weight" if context.kind is DirectionKind.PROBE else "vector"
        vector = context.tensors[name].to(torch.float64)
        unit: Tensor = vector / vector.norm()
        return unit.to(torch.float32)[None]
    return orthonormal(context.tensors["basis"])


def orthonormal(basis: Tensor) -> Tensor:
    """Gram-Schmidt of the rows of `basis` [k, d], the first row keeping its direction.

    Raises:
        InvalidFieldError: The rows are linearly dependent.
    """
    rows = basis.to(torch.float64)
    rows = rows / rows.norm(dim=1, keepdim=True)
    q, r = torch.linalg.qr(rows.T)
    diagonal = r.diagonal()
    if rows.shape[0] > rows.shape[1] or bool((diagonal.abs() < 1e-6).any()):
        raise InvalidFieldError(
            f"basis has {rows.shape[0]} rows that are linearly dependent; expected independent "
            "rows",
            param="direction",
        )
    signed: Tensor = q * diagonal.sign()  # QR leaves the sign of each row open
    return signed.T.to(torch.float32).contiguous()


def ablate(context: OperationContext) -> Edit:
    """h' = h - g ((h - ref) Q^T) Q, Q orthonormal rows: remove what lies along a direction.

    `reference` None is directional ablation (ref = 0). A number is the projection to leave
    instead; `"stored"` leaves that of the direction's `reference` tensor (affine concept editing).

    Raises:
        InvalidFieldError: A reference the direction does not hold, or a number for a basis.

    Source: Arditi et al. 2024, arXiv:2406.11717; Marshall et al. 2024, arXiv:2411.09003.
    """
    rows = unit_rows(context)
    reference = context.intervention.reference
    offset = torch.zeros(rows.shape[0])
    if reference == "stored":
        if "reference" not in context.tensors:
            raise InvalidFieldError(
                f"reference is 'stored', but {context.intervention.direction} holds no tensor "
                "'reference'; upload it with one or give a number",
                param="reference",
            )
        offset = rows @ context.tensors["reference"]
    elif reference is not None:
        if rows.shape[0] != 1:
            raise InvalidFieldError(
                f"reference is a number for a basis of {rows.shape[0]} rows; expected 'stored'",
                param="reference",
            )
        offset = torch.tensor([float(reference)])
    return _low_rank(context, rows, offset, identity_response(rows.shape[0]), -rows)


def set_projection(context: OperationContext) -> Edit:
    """h' = h + g (value - h u) u, u the unit direction: fix the projection at `value`."""
    rows = unit_rows(context)
    value = context.intervention.value
    assert value is not None, "checked by Intervention"
    return _low_rank(context, rows, torch.tensor([value]), identity_response(1), -rows)


def clamp(context: OperationContext) -> Edit:
    """h' = h + g (clip(h u, minimum, maximum) - h u) u, u the unit direction."""
    rows = unit_rows(context)
    low, high = context.intervention.minimum, context.intervention.maximum
    response = Response(
        linear=torch.tensor([-1.0]),
        clip=torch.tensor([1.0]),
        low=torch.tensor([-math.inf if low is None else low]),
        high=torch.tensor([math.inf if high is None else high]),
    )
    return _low_rank(context, rows, torch.zeros(1), response, rows)


def _low_rank(
    context: OperationContext, read: Tensor, offset: Tensor, response: Response, write: Tensor
) -> Edit:
    return Edit(
        read=read,
        offset=offset,
        response=response,
        write=write,
        restore_norm=bool(context.intervention.restore_norm),
    )
