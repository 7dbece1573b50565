"""Principal components of two sets together, each set counting the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.directions import Direction, DirectionKind
from steering.errors import FitError
from steering.sites import Site

from .activations import ActivationPair
from .fitted import fitted_direction

__all__ = ["PooledPca", "check_rank", "fit_pca", "oriented", "pooled_pca"]


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
