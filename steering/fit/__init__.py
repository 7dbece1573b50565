"""Learning directions from activations: pure functions of tensors, in float64."""

from __future__ import annotations

from .activations import ActivationPair
from .angular_plane import fit_angular_plane
from .bootstrap import bootstrap_cosine, bootstrap_separation
from .candidate import Candidate
from .gaussian_transport import fit_gaussian_transport
from .interval import Interval
from .iti_heads import fit_iti_heads
from .layers import combine_layers
from .leace import fit_leace
from .linear_act import fit_linear_act
from .mean_centring import fit_mean_centring
from .mean_difference import fit_mean_difference
from .methods import METHODS, Method, find_method
from .null_space import fit_null_space
from .number_range import POSITIVE
from .options import Option
from .pair_pca import fit_pair_pca
from .pca import PooledPca, fit_pca, pooled_pca
from .probe import fit_probe
from .receipt import Damage, DataSummary, Receipt
from .sample_counts import SampleCounts
from .selection import (
    Rejection,
    Selection,
    select_by_effect,
    select_by_log_odds,
    select_by_separation,
)
from .separation import Separation, measure_separation, midpoint

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
