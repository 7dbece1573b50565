"""Erasing what a linear classifier could read, with the least change."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steering.directions import Direction, DirectionKind
from steering.fit.activations import ActivationPair
from steering.fit.fitted import fitted_direction, require_gap
from steering.sites import Site


def fit_leace(
    positive: Tensor,
    negative: Tensor,
    *,
    name: str,
    layer: int,
    shrinkage: bool = True,
    site: Site = Site.RESID_POST,
    model_fingerprint: str | None = None,
) -> Direction:
    """h' = h - ((h - mu) . w) D / (D . w),  w = S^-1 D: least-squares concept erasure, two classes.

    D = mean(positive) - mean(negative), mu the midpoint of the means, S the covariance of both
    sets together, each counting the same. Afterwards both sets have mean mu, so that no linear
    classifier does better than a constant on them. Of all affine maps that do so, the one with the
    unshrunk S changes activations least in mean square, in every inner product. An oblique
    projection: it reads along w and writes along D.

    positive [N, d], negative [M, d], any float dtype. Kind `transport` with V = w / |w| [1, d],
    m = V . mu, C = -D |w| / (D . w), b = 0; strength between 0 and 1 erases a part. Thin SVD of
    [N + M, d] in float64; no d x d matrix.

    Args:
        positive: Activations of one class.
        negative: Activations of the other.
        name: Name of the direction.
        layer: Where the activations were taken.
        shrinkage: Whether S is shrunk towards a multiple of the identity by the asymptotically
            optimal amount. Without it and with fewer samples than d, w reads mostly noise.
        site: Where the activations were taken.
        model_fingerprint: Model the activations are from.

    Raises:
        FitError: Fewer than two samples, or means that are the same.
        SteeringError: Tensors that are not two finite matrices of one width.

    Source: Belrose et al. 2023, arXiv:2306.03819; shrinkage: Bodnar et al. 2014, arXiv:1308.2608.
    """
    pair = ActivationPair.of(negative, positive, names=("negative", "positive"))
    require_gap(pair)
    center = (pair.source_mean + pair.target_mean) / 2
    rows = [(x - center) / math.sqrt(2 * len(x)) for x in (pair.source, pair.target)]
    _, singular, axes = torch.linalg.svd(torch.cat(rows), full_matrices=False)
    variances = singular**2
    num_samples, width = len(pair.source) + len(pair.target), pair.source.shape[1]
    kept = _sample_share(variances, num_samples, width) if shrinkage else 1.0
    shrunk = kept * variances + (1 - kept) * variances.sum() / width
    # D lies in the span of the centred rows, so the inverse is needed on their axes alone.
    floor = float(shrunk.max()) * width * torch.finfo(shrunk.dtype).eps
    inverse = torch.where(shrunk > floor, 1 / shrunk, torch.zeros(()))
    read = axes.T @ (inverse * (axes @ pair.shift))
    unit = read / read.norm()
    along = float(unit @ pair.shift)
    return fitted_direction(
        DirectionKind.TRANSPORT,
        pair,
        {
            "basis": unit[None],
            "offset": (unit @ center)[None],
            "map": (-pair.shift / along)[None],
            "shift": torch.zeros_like(center),
        },
        method="leace",
        name=name,
        layer=layer,
        site=site,
        model_fingerprint=model_fingerprint,
        shrinkage=shrinkage,
        sample_share=kept,
        # 1 for an orthogonal projection; how much it can lengthen an activation otherwise.
        obliqueness=float(pair.shift.norm()) / along,
    )


def _sample_share(variances: Tensor, num_samples: int, width: int) -> float:
    """Weight of the sample covariance, in [0, 1]; the rest goes to the identity of its trace.

    The published estimate can leave [0, 1] on few samples; a covariance cannot.
    """
    trace, square = float(variances.sum()), float((variances**2).sum())
    spread = square - trace**2 / width
    if spread <= 0:
        return 0.0
    return min(max(1 - trace**2 / num_samples / spread, 0.0), 1.0)
