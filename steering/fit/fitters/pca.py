"""Principal components of two sets together, and of the differences of pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from steering.directions import MIN_NORM, Direction, DirectionKind
from steering.errors import FitError
from steering.fit.activations import ActivationPair
from steering.fit.fitted import fitted_direction
from steering.sites import Site


@dataclass(frozen=True, eq=False, slots=True)
class PooledPca:
    """The leading principal components of a pair of sets.

    Attributes:
        axes: [k, d], orthonormal rows in order of variance, float64. Each points from the source
            mean to the target mean, or, where they coincide along it, towards its largest entry.
        variances: [k], variance along each axis, both sets counting the same.
        explained: Their share of all variance, in [0, 1].
    """

    axes: Tensor
    variances: Tensor
    explained: float


def check_rank(rank: int, num_samples: int, width: int) -> None:
    """Check that so many samples of both sets together, [*, width], can span `rank` components.

    Raises:
        FitError: They cannot.
    """
    most = min(num_samples - 2, width)
    if not 1 <= rank <= most:
        raise FitError(
            f"rank is {rank}; {num_samples} samples of width {width} support 1 to {most}",
            param="rank",
        )


def pooled_pca(pair: ActivationPair, rank: int) -> PooledPca:
    """PCA around the midpoint of the two means, with weight 1/2 for each set.

    Unequal numbers of samples therefore tilt nothing. The gap between the means is part of the
    variance, so the first axis is close to it where the sets separate; components within the
    classes would miss most of it. Thin SVD of [N_s + N_t, d] in float64; no d x d matrix.

    Raises:
        FitError: The samples do not span `rank` components.
    """
    num_samples, width = len(pair.source) + len(pair.target), pair.source.shape[1]
    check_rank(rank, num_samples, width)
    center = (pair.source_mean + pair.target_mean) / 2
    rows = [(x - center) / math.sqrt(2 * len(x)) for x in (pair.source, pair.target)]
    _, singular, axes = torch.linalg.svd(torch.cat(rows), full_matrices=False)
    floor = float(singular[0]) * max(num_samples, width) * torch.finfo(torch.float64).eps
    spanned = int((singular > floor).sum())
    if spanned < rank:
        raise FitError(
            f"rank is {rank}, but the samples vary along {spanned} directions only", param="rank"
        )
    variances = singular**2
    return PooledPca(
        axes=oriented(axes[:rank], pair.shift),
        variances=variances[:rank],
        explained=float(variances[:rank].sum() / variances.sum()),
    )


def fit_pca(
    positive: Tensor,
    negative: Tensor,
    *,
    name: str,
    layer: int,
    rank: int = 1,
    site: Site = Site.RESID_POST,
    model_fingerprint: str | None = None,
) -> Direction:
    """basis [rank, d] = the pooled principal components; `reference` is the negative mean.

    positive [N, d], negative [M, d], any float dtype. Both sets are centred on the midpoint of
    their means and count the same, so that the gap between them is one of the components; rank 1
    is close to it where the sets separate. For pairs see `fit_pair_pca`.

    Raises:
        FitError: The samples do not span `rank` components.
        SteeringError: Tensors that are not two finite matrices of one width.
    """
    pair = ActivationPair.of(negative, positive, names=("negative", "positive"))
    pca = pooled_pca(pair, rank)
    return fitted_direction(
        DirectionKind.BASIS,
        pair,
        {"basis": pca.axes, "reference": pair.source_mean},
        method="pca",
        name=name,
        layer=layer,
        site=site,
        model_fingerprint=model_fingerprint,
        rank=rank,
        variances=pca.variances.tolist(),
        explained=pca.explained,
    )


def oriented(axes: Tensor, shift: Tensor) -> Tensor:
    """Rows [k, d] with signs that do not depend on the linear algebra library.

    Each points along `shift` [d], or, where orthogonal to it, towards its largest entry.
    """
    along = axes @ shift
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))[:, 0]
    decides = torch.where(along.abs() > 1e-9 * shift.norm(), along, largest)
    return axes * torch.where(decides < 0, -1.0, 1.0)[:, None]


def fit_pair_pca(
    positive: Tensor,
    negative: Tensor,
    *,
    name: str,
    layer: int,
    centring: Literal["pairs", "differences"] = "pairs",
    site: Site = Site.RESID_POST,
    model_fingerprint: str | None = None,
) -> Direction:
    """vector = (u . mean(D)) u, u the first principal component of D = positive - negative.

    positive and negative [N, d], row i of one belonging to row i of the other, any float dtype.
    u points the way most pairs differ (a tie is broken by the mean), and the vector is as long as
    the pairs differ along it, so that strength 1 carries the negative mean's projection to the
    positive one's. `reference` is the negative mean.

    Args:
        positive: Activations to reach.
        negative: Their partners.
        name: Name of the direction.
        layer: Where the activations were taken.
        centring: `pairs` centres each pair on its midpoint, which is PCA of D and -D around zero.
            `differences` subtracts mean(D) first, as a PCA library does by itself: where all
            pairs differ alike that removes what they share, and what is left is noise. It is
            there to reproduce results that were made so.
        site: Where the activations were taken.
        model_fingerprint: Model the activations are from.

    Raises:
        FitError: Sets of different sizes, pairs that do not differ, or differences that have no
            mean along their main axis.
        SteeringError: Tensors that are not two finite matrices of one width.

    Source: Zou et al. 2023, arXiv:2310.01405; `pca_diff` of repeng.
    """
    pair = ActivationPair.of(negative, positive, names=("negative", "positive"))
    if len(pair.source) != len(pair.target):
        raise FitError(
            f"positive has {len(pair.target)} samples and negative {len(pair.source)}; expected "
            "pairs, or use 'pca' for two sets",
            param="positive",
        )
    differences = pair.target - pair.source
    rows = differences - differences.mean(dim=0) if centring == "differences" else differences
    _, singular, axes = torch.linalg.svd(rows, full_matrices=False)
    if float(singular[0]) < MIN_NORM:
        raise FitError("the pairs do not differ; expected activations that do", param="positive")
    along = differences @ axes[0]
    votes = float(along.sign().sum())
    sign = 1.0 if (votes or float(along.mean())) >= 0 else -1.0
    gap = float(along.mean()) * sign
    if gap < MIN_NORM:
        raise FitError(
            f"the differences have mean {gap:.3g} along their main axis, against the sign of most "
            "pairs; use more pairs, or 'mean_difference'",
            param="positive",
        )
    return fitted_direction(
        DirectionKind.VECTOR,
        pair,
        {"vector": gap * sign * axes[0], "reference": pair.source_mean},
        method="pair_pca",
        name=name,
        layer=layer,
        site=site,
        model_fingerprint=model_fingerprint,
        centring=centring,
        explained=float(singular[0] ** 2 / (singular**2).sum()),
        agreeing_pairs=float((along * sign > 0).to(torch.float64).mean()),
        cosine_to_mean_difference=float(sign * axes[0] @ pair.shift / pair.shift.norm()),
    )
