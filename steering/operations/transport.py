"""Affine maps that carry one distribution of activations to another."""

from __future__ import annotations

from .context import OperationContext, identity_response
from .edit import Edit, EditForm

__all__ = ["diagonal", "transport"]


def transport(context: OperationContext) -> Edit:
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


def diagonal(context: OperationContext) -> Edit:
    """h' = h + g [ (scale - 1) * h + shift ]: one affine map per coordinate (Linear-AcT).

    Source: Rodriguez et al. 2024, arXiv:2410.23054.
    """
    return Edit(
        form=EditForm.DIAGONAL,
        scale=context.tensors["scale"] - 1.0,
        shift=context.tensors["shift"],
        restore_norm=bool(context.intervention.restore_norm),
    )
