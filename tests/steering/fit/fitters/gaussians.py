"""Samples of known distributions, and maps computed in another way than the library does."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from steering.directions import Direction

FloatArray = Any


def samples(
    generator: np.random.Generator,
    num_samples: int,
    *,
    mean: FloatArray | float = 0.0,
    scales: FloatArray,
    noise: float = 0.1,
    width: int | None = None,
) -> FloatArray:
    """Rows with standard deviation `scales[i]` along axis i and `noise` along the others."""
    width = len(scales) if width is None else width
    spread = np.full(width, noise)
    spread[: len(scales)] = scales
    return generator.standard_normal((num_samples, width)) * spread + mean


def covariance(rows: FloatArray) -> FloatArray:
    """Unbiased sample covariance."""
    centred = rows - rows.mean(axis=0)
    return centred.T @ centred / (len(rows) - 1)


def geometric_map(source: FloatArray, target: FloatArray) -> FloatArray:
    """The transport map of centred Gaussians as S^-1 (S T)^1/2, by the Newton iteration.

    (S T)^1/2 = S^1/2 (S^1/2 T S^1/2)^1/2 S^-1/2, so this is the same map without one symmetric
    root: Denman & Beavers 1976.
    """
    root, inverse = source @ target, np.eye(len(source))
    for _ in range(60):
        root, inverse = (
            (root + np.linalg.inv(inverse)) / 2,
            (inverse + np.linalg.inv(root)) / 2,
        )
    return np.linalg.solve(source, root)


def transported(direction: Direction, rows: FloatArray) -> FloatArray:
    """h + (h V^T - m) C + b in float64, straight from the stored tensors."""
    layer = direction.layers[0]
    v, m, c, b = (
        direction.at(layer)[key].to(torch.float64).numpy()
        for key in ("basis", "offset", "map", "shift")
    )
    return rows + (rows @ v.T - m) @ c + b
