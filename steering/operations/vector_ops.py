"""Operations on an activation along a direction: add, ablate, set, clamp and rank-one injection."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steering.directions import DirectionKind
from steering.documents import (
    Ablate,
    Add,
    Clamp,
    Intervention,
    RankOne,
    SetProjection,
    StrengthUnit,
)
from steering.errors import InvalidFieldError, SiteUnavailableError
from steering.sites import Site

from .edit import Edit, OperationContext, Response, identity_response


def unit_rows(context: OperationContext[Intervention]) -> Tensor:
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


def ablate(context: OperationContext[Ablate]) -> Edit:
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


def set_projection(context: OperationContext[SetProjection]) -> Edit:
    """h' = h + g (value - h u) u, u the unit direction: fix the projection at `value`."""
    rows = unit_rows(context)
    value = torch.tensor([context.intervention.value])
    return _low_rank(context, rows, value, identity_response(1), -rows)


def clamp(context: OperationContext[Clamp]) -> Edit:
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
    context: OperationContext[Intervention],
    read: Tensor,
    offset: Tensor,
    response: Response,
    write: Tensor,
) -> Edit:
    return Edit(
        read=read,
        offset=offset,
        response=response,
        write=write,
        restore_norm=bool(context.intervention.restore_norm),
    )


def add(context: OperationContext[Add]) -> Edit:
    """h' = h + g v: activation addition, contrastive activation addition, control vectors.

    With unit `raw` v is the vector as stored; with `resid` it is the normalised vector times the
    mean norm of activations at the point, so that strength is a dose.

    Raises:
        SiteUnavailableError: Unit `resid` where no norm was measured.

    Source: Turner et al. 2023, arXiv:2308.10248; Rimsky et al. 2023, arXiv:2312.06681.
    """
    vector = context.tensors["vector"]
    if context.intervention.unit is StrengthUnit.RESID:
        if context.resid_norm is None:
            raise SiteUnavailableError(
                f"unit is 'resid', but no norm was measured at {context.point.site.value!r} of "
                f"layer {context.point.layer}; use 'raw'",
                param="unit",
            )
        vector = vector / vector.norm() * context.resid_norm
    return Edit(shift=vector, restore_norm=bool(context.intervention.restore_norm))


def rank_one(context: OperationContext[RankOne]) -> Edit:
    """y' = y + g (mean(y) - mean(c)) s: the weight edit W' = W + g s w^T of ROSI, served per token.

    s is the unit direction, w the mean of the rows of W (not normalised), c the bias of W, and
    y = W x + c. Exact for y at `attn_out`, `mlp_out` and `embed`, because w^T x = mean(W x). The
    push has the sign of mean(y) of that token, which nothing in the construction fixes.

    Raises:
        SiteUnavailableError: At any other site, or where c depends on the token.

    Source: ROSI, arXiv:2508.20766, equation 6.
    """
    if context.point.site not in (Site.ATTN_OUT, Site.MLP_OUT, Site.EMBED):
        raise SiteUnavailableError(
            f"site is {context.point.site.value!r} for 'rank_one', which edits what a write matrix "
            "puts out; expected 'attn_out', 'mlp_out' or 'embed'",
            param="site",
        )
    if context.write_bias_mean is None:
        raise SiteUnavailableError(
            f"site is {context.point.site.value!r} for 'rank_one', but the experts of this model "
            "have a bias each, so that W x cannot be told from what the site shows; use 'attn_out'",
            param="site",
        )
    return Edit(
        read=torch.full((1, context.width), 1.0 / context.width),
        offset=torch.tensor([context.write_bias_mean]),
        response=identity_response(1),
        write=unit_rows(context),
        restore_norm=bool(context.intervention.restore_norm),
    )
