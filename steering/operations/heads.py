"""Scaling attention heads."""

from __future__ import annotations

import torch

from .context import OperationContext
from .edit import Edit, EditForm

__all__ = ["scale_heads"]


def scale_heads(context: OperationContext) -> Edit:
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
