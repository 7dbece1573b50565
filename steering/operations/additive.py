"""Adding a vector."""

from __future__ import annotations

from steering.errors import SiteUnavailableError
from steering.interventions import StrengthUnit

from .context import OperationContext
from .edit import Edit

__all__ = ["add"]


def add(context: OperationContext) -> Edit:
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
