"""One affine map per coordinate: optimal transport between one-dimensional marginals."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from steering.directions import Direction, DirectionKind
from steering.errors import FitError
from steering.fit.activations import ActivationPair
from steering.fit.fitted import fitted_direction
from steering.fit.options import NotNegative, check_number
from steering.sites import Site


def fit_linear_act(
    positive: Tensor,
    negative: Tensor,
    *,
    name: str,
    layer: int,
    variant: Literal["linear", "gaussian", "mean"] = "linear",
    min_std: NotNegative = 1e-4,
    site: Site = Site.RESID_POST,
    model_fingerprint: str | None = None,
) -> Direction:
    """T(h) = omega * h + beta per coordinate, from the negative to the positive marginals.

        linear    omega = sum(x y) / sum(x^2), the least squares line through both sets sorted
                  (x, y centred); at least 0, as transport in one dimension is monotone
        gaussian  omega = std(positive) / std(negative)
        mean      omega = 1, which is the difference in means
        beta = mean(positive) - omega mean(negative) in each

    positive [N, d], negative [M, d], any float dtype. Sets of different sizes are matched quantile
    by quantile, which is the optimal coupling of the two samples. Kind `diagonal`; strength
    between 0 and 1 is displacement interpolation.

    The published map acts only where h lies in the range of the source samples. That is a mask on
    h and no affine map, so it is left out: far outside the data this one extrapolates.

    Args:
        positive: Activations to carry to.
        negative: Activations to carry away.
        name: Name of the direction.
        layer: Where the activations were taken.
        variant: Which of the three omega is fitted.
        min_std: Coordinates with a smaller standard deviation in either set stay as they are.
        site: Where the activations were taken.
        model_fingerprint: Model the activations are from.

    Raises:
        FitError: No coordinate varies in both sets.
        InvalidFieldError: A negative `min_std`.
        SteeringError: Tensors that are not two finite matrices of one width.

    Source: Rodriguez et al. 2024, arXiv:2410.23054.
    """
    check_number(NotNegative, min_std, "min_std")
    pair = ActivationPair.of(negative, positive, names=("negative", "positive"))
    source_std, target_std = pair.source.std(dim=0), pair.target.std(dim=0)
    moves = (source_std > min_std) & (target_std > min_std)
    if not bool(moves.any()):
        raise FitError(
            f"no coordinate varies by more than min_std = {min_std:g} in both sets; expected "
            "activations of different prompts",
            param="min_std",
        )
    spread = source_std.where(moves, torch.ones(()))
    omega = {
        "linear": lambda: _covariance_of_sorted(pair) / _biased_variance(pair.source, moves),
        "gaussian": lambda: target_std / spread,
        "mean": lambda: torch.ones_like(spread),
    }[variant]()
    omega = omega.where(moves, torch.ones(()))
    beta = (pair.target_mean - omega * pair.source_mean).where(moves, torch.zeros(()))
    return fitted_direction(
        DirectionKind.DIAGONAL,
        pair,
        {"scale": omega, "shift": beta},
        method="linear_act",
        name=name,
        layer=layer,
        site=site,
        model_fingerprint=model_fingerprint,
        variant=variant,
        min_std=min_std,
        num_moved=int(moves.sum()),
        scale_range=[float(omega.min()), float(omega.max())],
    )


def _covariance_of_sorted(pair: ActivationPair) -> Tensor:
    """sum_k w_k x_k y_k per coordinate, centred, over the monotone coupling of both samples [d]."""
    num_source, num_target = len(pair.source), len(pair.target)
    # Counts of 1 / (N M): exact borders of the quantile intervals, without rounding.
    steps = (torch.arange(num_source + 1) * num_target, torch.arange(num_target + 1) * num_source)
    borders: Tensor = torch.unique(torch.cat(steps))
    weights = borders.diff().to(torch.float64) / (num_source * num_target)
    x = (pair.source - pair.source_mean).sort(dim=0).values[borders[:-1] // num_target]
    y = (pair.target - pair.target_mean).sort(dim=0).values[borders[:-1] // num_source]
    covariance: Tensor = weights @ (x * y)
    return covariance


def _biased_variance(rows: Tensor, moves: Tensor) -> Tensor:
    variance: Tensor = rows.var(dim=0, correction=0).where(moves, torch.ones(()))
    return variance
