"""Learning directions from activations: pure functions of tensors, in float64."""

from __future__ import annotations

from .activations import ActivationPair
from .layers import combine_layers
from .mean_difference import fit_mean_difference
from .pca import PooledPca, fit_pca, pooled_pca
from .transport import fit_transport

__all__ = [
    "ActivationPair",
    "PooledPca",
    "combine_layers",
    "fit_mean_difference",
    "fit_pca",
    "fit_transport",
    "pooled_pca",
]
