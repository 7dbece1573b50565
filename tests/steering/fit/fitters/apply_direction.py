"""A fitted direction, applied by the float64 oracle of the kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from steering.directions import Direction
from steering.documents import Intervention, PositionContext
from steering.model_spec import ModelSpec
from steering.plan import Steer
from steering.sites import SitePoint
from tests.steering.oracle import steer_tokens

from .gaussians import FloatArray


def apply_direction(
    direction: Direction,
    rows: FloatArray,
    operation: str,
    *,
    layer: int | None = None,
    **fields: Any,
) -> FloatArray:
    """rows [N, d] as the operation leaves them, in float64."""
    asked = {"operation": operation, "direction": direction.name, **fields}
    point = SitePoint(direction.layers[0] if layer is None else layer, direction.site)
    width = rows.shape[1]
    spec = ModelSpec("m", "f", "p", num_layers=64, hidden_size=width, num_heads=1, head_dim=width)
    moved = steer_tokens(
        torch.from_numpy(np.asarray(rows)),
        [Steer(Intervention.from_dict(asked), direction)],
        point,
        spec,
        0,
        PositionContext(num_prompt_tokens=len(rows)),
    )
    result: FloatArray = moved.numpy()
    return result
