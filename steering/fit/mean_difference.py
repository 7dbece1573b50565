"""The difference of two means: the simplest direction, and the one to beat."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steering.directions import MIN_NORM, Direction, DirectionKind
from steering.errors import FitError
from steering.sites import Site

from .activations import ActivationPair

__all__ = ["fit_mean_difference"]


def fit_mean_difference(
    positive: Tensor,
    negative: Tensor,
    *,
    name: str,
    layer: int,
    site: Site = Site.RESID_POST,
    model_fingerprint: str | None = None,
) -> Direction:
    """vector = mean(positive) - mean(negative), of natural length.

    positive [N, d], negative [M, d], any float dtype; means in float64. Added with strength 1 it
    carries the negative mean to the positive one. `reference` is the negative mean, so that
    `ablate` with reference "stored" is affine concept editing.

    Raises:
        FitError: Fewer than two samples, or means that are the same.
        SteeringError: Tensors that are not two finite matrices of one width.

    Source: Arditi et al. 2024, arXiv:2406.11717; Marshall et al. 2024, arXiv:2411.09003.
    """
    pair = ActivationPair.of(negative, positive, names=("negative", "positive"))
    if float(pair.shift.norm()) < MIN_NORM:
        raise FitError(
            f"the means of positive and negative differ by {float(pair.shift.norm()):.3g}; "
            f"expected at least {MIN_NORM:g}",
            param="positive",
        )
    separation = pair.separation(pair.shift)
    return Direction(
        name=name,
        kind=DirectionKind.VECTOR,
        site=site,
        layers=(layer,),
        tensors={
            "vector": pair.shift.to(torch.float32),
            "reference": pair.source_mean.to(torch.float32),
        },
        model_fingerprint=model_fingerprint,
        provenance={
            "method": "mean_difference",
            "num_positive": len(pair.target),
            "num_negative": len(pair.source),
            "data_sha256": pair.digest,
            "separation": separation if math.isfinite(separation) else None,
        },
    )
