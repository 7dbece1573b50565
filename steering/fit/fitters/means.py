"""The difference of two means: the simplest direction, and the one to beat."""

from __future__ import annotations

import math

from torch import Tensor

from steering.directions import Direction, DirectionKind
from steering.fit.activations import ActivationPair
from steering.fit.fitted import fitted_direction, require_gap
from steering.sites import Site


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
    require_gap(pair)
    separation = pair.separation(pair.shift)
    return fitted_direction(
        DirectionKind.VECTOR,
        pair,
        {"vector": pair.shift, "reference": pair.source_mean},
        method="mean_difference",
        name=name,
        layer=layer,
        site=site,
        model_fingerprint=model_fingerprint,
        separation=separation if math.isfinite(separation) else None,
    )


def fit_mean_centring(
    positive: Tensor,
    negative: Tensor,
    *,
    name: str,
    layer: int,
    site: Site = Site.RESID_POST,
    model_fingerprint: str | None = None,
) -> Direction:
    """vector = mean(positive) - mean(background), of natural length.

    positive [N, d] are activations of the wanted kind; negative [M, d] those of a *background*:
    a broad sample of ordinary text, not an opposite. The mean of any set points mostly where all
    activations point; the background mean is that part. Same arithmetic as the difference in
    means; no `reference` is stored, because the background is not a state to return to.

    Raises:
        FitError: Fewer than two samples, or means that are the same.
        SteeringError: Tensors that are not two finite matrices of one width.

    Source: Jorgensen et al. 2023, arXiv:2312.03813.
    """
    pair = ActivationPair.of(negative, positive, names=("negative", "positive"))
    require_gap(pair)
    uncentred, centred = pair.target_mean, pair.shift
    cosine = float(uncentred @ pair.source_mean / uncentred.norm() / pair.source_mean.norm())
    return fitted_direction(
        DirectionKind.VECTOR,
        pair,
        {"vector": centred},
        method="mean_centring",
        name=name,
        layer=layer,
        site=site,
        model_fingerprint=model_fingerprint,
        background_cosine=cosine if cosine == cosine else None,
        remaining_length=float(centred.norm() / uncentred.norm().clamp(min=1e-300)),
    )
