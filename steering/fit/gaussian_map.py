"""The optimal transport map between two centred Gaussians."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from steering.errors import FitError

__all__ = ["gaussian_map"]

_FLOOR: Final = 1e-6
_ROUNDING: Final = torch.finfo(torch.float64).eps
_MAX_RESIDUAL: Final = 1e-8
_MAX_INVERSE_ERROR: Final = 1e-6


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
