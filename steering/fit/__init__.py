"""Learning directions from activations: pure functions of tensors, in float64."""

from __future__ import annotations

from .activations import ActivationPair, SampleCounts
from .fitted import combine_layers
from .fitters.angular_plane import fit_angular_plane
from .fitters.gaussian_transport import fit_gaussian_transport
from .fitters.iti_heads import fit_iti_heads
from .fitters.leace import fit_leace
from .fitters.linear_act import fit_linear_act
from .fitters.means import fit_mean_centring, fit_mean_difference
from .fitters.null_space import fit_null_space
from .fitters.pca import PooledPca, fit_pair_pca, fit_pca, pooled_pca
from .fitters.probe import fit_probe
from .methods import METHODS, Method, find_method
from .number_range import POSITIVE
from .options import Option
from .receipt import Damage, DataSummary, Receipt
from .selection import (
    Candidate,
    Rejection,
    Selection,
    select_by_effect,
    select_by_log_odds,
    select_by_separation,
)
from .separation import (
    Interval,
    Separation,
    bootstrap_cosine,
    bootstrap_separation,
    measure_separation,
    midpoint,
)

__all__ = [
    "METHODS",
    "POSITIVE",
    "ActivationPair",
    "Candidate",
    "Damage",
    "DataSummary",
    "Interval",
    "Method",
    "Option",
    "PooledPca",
    "Receipt",
    "Rejection",
    "SampleCounts",
    "Selection",
    "Separation",
    "bootstrap_cosine",
    "bootstrap_separation",
    "combine_layers",
    "find_method",
    "fit_angular_plane",
    "fit_gaussian_transport",
    "fit_iti_heads",
    "fit_leace",
    "fit_linear_act",
    "fit_mean_centring",
    "fit_mean_difference",
    "fit_null_space",
    "fit_pair_pca",
    "fit_pca",
    "fit_probe",
    "measure_separation",
    "midpoint",
    "pooled_pca",
    "select_by_effect",
    "select_by_log_odds",
    "select_by_separation",
]
