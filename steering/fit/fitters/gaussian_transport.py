"""Gaussian optimal transport in the principal components of two sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from steering.directions import Direction, DirectionKind
from steering.errors import FitError
from steering.fit.activations import ActivationPair
from steering.fit.fitted import fitted_direction
from steering.fit.options import AtLeastOne, UnitInterval, check_number
from steering.sites import Site

from .pca import PooledPca, pooled_pca

_FLOOR: Final = 1e-6

_ROUNDING: Final = torch.finfo(torch.float64).eps

_MAX_RESIDUAL: Final = 1e-8

_MAX_INVERSE_ERROR: Final = 1e-6
DEFAULT_RANK: Final = 2
DEFAULT_SHRINKAGE: Final = 0.2
DEFAULT_MAX_STRETCH: Final = 2.0
_MAX_MOMENT_ERROR: Final = 0.01


def gaussian_map(source: Tensor, target: Tensor) -> Tensor:
    """A = S^-1/2 (S^1/2 T S^1/2)^1/2 S^-1/2, the symmetric positive definite A with A S A = T.

    source S and target T are covariances [k, k], float64. Square roots by symmetric
    eigendecomposition; eigenvalues of S and T are floored at 1e-6 of the largest. The result is
    checked: it is positive definite, it carries S to T, and the map of T to S is its inverse.

    Raises:
        FitError: A covariance is too close to singular for these to hold.

    Source: Olkin & Pukelsheim 1982; methods as in Nanfack et al. 2026, arXiv:2603.04355.
    """
    forward, backward = _closed_form(source, target), _closed_form(target, source)
    residual = float((forward @ source @ forward - target).norm() / target.norm())
    inverse = float((forward @ backward - torch.eye(len(source), dtype=source.dtype)).norm())
    is_definite = bool((torch.linalg.eigvalsh(forward) > 0).all())
    if not (residual < _MAX_RESIDUAL and inverse < _MAX_INVERSE_ERROR and is_definite):
        raise FitError(
            f"the covariances of rank {len(source)} are close to singular (error of the map "
            f"{residual:.1e}, of its inverse {inverse:.1e}); lower rank, raise shrinkage or give "
            "more samples",
            param="rank",
        )
    return forward


def _closed_form(source: Tensor, target: Tensor) -> Tensor:
    root, inverse_root = _roots(source, _FLOOR)
    # The condition of the inner matrix is up to the product of theirs: only rounding is floored.
    inner, _ = _roots(root @ target @ root, len(source) * _ROUNDING)
    result = inverse_root @ inner @ inverse_root
    return (result + result.T) / 2


def _roots(matrix: Tensor, relative_floor: float) -> tuple[Tensor, Tensor]:
    """matrix^1/2 and matrix^-1/2 of a symmetric positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    floor = max(float(values[-1]) * relative_floor, torch.finfo(values.dtype).tiny)
    roots = values.clamp(min=floor).sqrt()
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def fit_gaussian_transport(
    positive: Tensor,
    negative: Tensor,
    *,
    name: str,
    layer: int,
    site: Site = Site.RESID_POST,
    rank: int = DEFAULT_RANK,
    shrinkage: UnitInterval = DEFAULT_SHRINKAGE,
    max_stretch: AtLeastOne = DEFAULT_MAX_STRETCH,
    complement_shift: UnitInterval = 1.0,
    model_fingerprint: str | None = None,
) -> Direction:
    """The map that carries negative activations to positive ones: T(h) = h + (h V^T - m) C + b.

        V = U                      pooled principal components [k, d]
        m = mu_s U^T               [k]
        C = (A - I) U              [k, d], A the Gaussian transport of the covariances in U
        b = D U^T U + eta (D - D U^T U),   D = mu_t - mu_s

    with s the negative and t the positive set.

    Outside U the map is the identity plus the shift. positive [N, d] and negative [M, d] of any
    float dtype; computed in float64, stored as float32. The rank is what the samples support:
    with 128 of each set 1 or 2, with 32 thousands. The fit holds where it was made, on states of
    the same kind of position; on others it extrapolates linearly.

    Args:
        positive: Activations to carry to.
        negative: Activations to carry away.
        name: Name of the direction.
        layer: Where the activations were taken.
        site: Where the activations were taken.
        rank: k.
        shrinkage: rho in [0, 1]: both covariances become (1 - rho) of themselves plus rho of
            their average. 0 matches the sample covariances; 1 leaves a pure shift of the mean.
        max_stretch: kappa >= 1: eigenvalues of A are clipped to [1 / kappa, kappa].
        complement_shift: eta in [0, 1]: how much of the mean difference outside U is applied.
        model_fingerprint: Model the activations are from.

    Raises:
        FitError: The samples do not support the rank, or a check of the map fails: that it is
            symmetric positive definite, carries one covariance to the other, is undone by the map
            back, and still moves the source set onto the target's mean when stored.
        InvalidFieldError: A number outside its range.
        SteeringError: Tensors that are not two finite matrices of one width.

    Source: Nanfack, Belilovsky & Dohmatob 2026, arXiv:2603.04355.
    """
    check_number(UnitInterval, shrinkage, "shrinkage")
    check_number(AtLeastOne, max_stretch, "max_stretch")
    check_number(UnitInterval, complement_shift, "complement_shift")
    pair = ActivationPair.of(negative, positive, names=("negative", "positive"))
    pca = pooled_pca(pair, rank)
    stretches, frame = torch.linalg.eigh(_shrunk_map(pair, pca, shrinkage))
    clipped = stretches.clamp(1.0 / max_stretch, max_stretch)
    inside = (pair.shift @ pca.axes.T) @ pca.axes
    outside = pair.shift - inside
    tensors = {
        "basis": pca.axes,
        "offset": pca.axes @ pair.source_mean,
        "map": (frame * (clipped - 1.0)) @ frame.T @ pca.axes,
        "shift": inside + complement_shift * outside,
    }
    stored = {key: tensor.to(torch.float32).to(torch.float64) for key, tensor in tensors.items()}
    return fitted_direction(
        DirectionKind.TRANSPORT,
        pair,
        tensors,
        method="gaussian_transport",
        name=name,
        layer=layer,
        site=site,
        model_fingerprint=model_fingerprint,
        rank=rank,
        shrinkage=shrinkage,
        max_stretch=max_stretch,
        complement_shift=complement_shift,
        explained=pca.explained,
        stretches=stretches.tolist(),
        num_clipped=int((clipped != stretches).sum()),
        shift_outside=float(outside.norm() / pair.shift.norm().clamp(min=1e-300)),
        moment_error=_moment_error(pair, pca, stored, frame * clipped @ frame.T),
    )


def _moment_error(
    pair: ActivationPair, pca: PooledPca, stored: Mapping[str, Tensor], expected: Tensor
) -> float:
    """How far the stored map misses mean and covariance in the axes, in units of the spread.

    Raises:
        FitError: So far that float32 does not hold the map: the activations lie further from zero
            than their spread can be resolved there.
    """
    moved = pair.source + (pair.source @ stored["basis"].T - stored["offset"]) @ stored["map"]
    moved = (moved + stored["shift"]) @ pca.axes.T
    own = _covariance(pair.source, pca)
    spread = own.diagonal().max().sqrt()
    mean_error = (moved.mean(dim=0) - pca.axes @ pair.target_mean).norm() / spread
    wanted = expected @ own @ expected
    found = torch.cov(moved.T).reshape(own.shape)
    error = max(float(mean_error), float((found - wanted).norm() / wanted.norm()))
    if error > _MAX_MOMENT_ERROR:
        raise FitError(
            f"stored as float32 the map misses the target's moments by {error:.1e} of the spread; "
            "the activations lie too far from zero for it",
            param="negative",
        )
    return error


def _shrunk_map(pair: ActivationPair, pca: PooledPca, shrinkage: float) -> Tensor:
    """A [k, k] between the two covariances in the axes, each shrunk towards their average."""
    own = [_covariance(rows, pca) for rows in (pair.source, pair.target)]
    average = (own[0] + own[1]) / 2
    if float(average.diagonal().min()) <= 0:
        raise FitError(
            "the samples do not vary within the two sets; expected activations of different "
            "prompts",
            param="negative",
        )
    return gaussian_map(*((1 - shrinkage) * matrix + shrinkage * average for matrix in own))


def _covariance(rows: Tensor, pca: PooledPca) -> Tensor:
    """Covariance [k, k] of the rows' coordinates along the axes."""
    return torch.cov((rows @ pca.axes.T).T).reshape(2 * (len(pca.axes),))
