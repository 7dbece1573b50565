"""Turning an activation in a plane; its component outside the plane stays."""

from __future__ import annotations

import math

import torch

from .context import OperationContext, identity_response
from .edit import Edit, EditForm
from .projection import orthonormal

__all__ = ["rotate", "rotate_to"]


def rotate(context: OperationContext) -> Edit:
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


def rotate_to(context: OperationContext) -> Edit:
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


def _cos_sin(context: OperationContext) -> tuple[float, float]:
    angle = context.intervention.angle
    assert angle is not None, "checked by Intervention"
    return math.cos(math.radians(angle)), math.sin(math.radians(angle))
