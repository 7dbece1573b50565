"""Operations that map an activation: affine maps, turns in a plane, scales of attention heads."""

from __future__ import annotations

import math

import torch

from steering.documents import Diagonal, Rotate, RotateTo, ScaleHeads, Transport

from .edit import Edit, EditForm, OperationContext, identity_response
from .vector_ops import orthonormal


def transport(context: OperationContext[Transport]) -> Edit:
    """h' = h + g [ s_shape (h V^T - m) C + s_mean b ]: Gaussian optimal transport and other maps.

    V, m, C, b are the direction's `basis`, `offset`, `map` and `shift`. With g = 1 and both
    strengths 1 it is the fitted map T(h); between 0 and 1 it is displacement interpolation.

    Source: McCann 1997; Nanfack et al. 2026, arXiv:2603.04355.
    """
    tensors, intervention = context.tensors, context.intervention
    shape = 1.0 if intervention.shape_strength is None else intervention.shape_strength
    mean = 1.0 if intervention.mean_strength is None else intervention.mean_strength
    return Edit(
        read=tensors["basis"],
        offset=tensors["offset"],
        response=identity_response(tensors["basis"].shape[0]),
        write=tensors["map"] * shape,
        shift=tensors["shift"] * mean,
        restore_norm=bool(intervention.restore_norm),
    )


def diagonal(context: OperationContext[Diagonal]) -> Edit:
    """h' = h + g [ (scale - 1) * h + shift ]: one affine map per coordinate (Linear-AcT).

    Source: Rodriguez et al. 2024, arXiv:2410.23054.
    """
    return Edit(
        form=EditForm.DIAGONAL,
        scale=context.tensors["scale"] - 1.0,
        shift=context.tensors["shift"],
        restore_norm=bool(context.intervention.restore_norm),
    )


def rotate(context: OperationContext[Rotate]) -> Edit:
    """h' = h + g (h B^T)(R^T - I) B: turn by `angle` degrees, from the first axis to the second.

    B [2, d] is the direction's basis made orthonormal, its first row keeping its direction; R is
    the rotation matrix. At strength 1 the norm is kept.
    """
    plane = orthonormal(context.tensors["basis"])
    cos, sin = _cos_sin(context)
    turn = torch.tensor([[cos - 1.0, sin], [-sin, cos - 1.0]])
    return Edit(
        read=plane,
        offset=torch.zeros(2),
        response=identity_response(2),
        write=turn @ plane,
        restore_norm=bool(context.intervention.restore_norm),
    )


def rotate_to(context: OperationContext[RotateTo]) -> Edit:
    """h' = h + g (|z| (cos, sin) - z) B, z = h B^T: turn the component in the plane to `angle`.

    At strength 1 the norm is kept.

    Source: Vu and Nguyen 2025, arXiv:2510.26243 (angular steering).
    """
    cos, sin = _cos_sin(context)
    return Edit(
        form=EditForm.TURN,
        read=orthonormal(context.tensors["basis"]),
        target=torch.tensor([cos, sin]),
        restore_norm=bool(context.intervention.restore_norm),
    )


def _cos_sin(context: OperationContext[Rotate | RotateTo]) -> tuple[float, float]:
    angle = math.radians(context.intervention.angle)
    return math.cos(angle), math.sin(angle)


def scale_heads(context: OperationContext[ScaleHeads]) -> Edit:
    """z_i' = z_i + g (scale_i - 1) z_i for head i, then the token's norm over heads restored.

    Acts at the input of the attention output projection. `restore_norm` false leaves the norm.
    The published code takes the norm over batch and positions together; per token is the form
    that does not depend on the batch.

    Source: Refusal Cliff, arXiv:2510.06036 (ablation of refusal suppression heads).
    """
    restore = context.intervention.restore_norm
    scale = (context.tensors["scale"] - 1.0).repeat_interleave(context.head_dim)
    return Edit(
        form=EditForm.DIAGONAL,
        scale=scale,
        shift=torch.zeros_like(scale),
        restore_norm=True if restore is None else restore,
    )
