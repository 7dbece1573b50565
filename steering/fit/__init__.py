"""Learning directions from activations: pure functions of tensors, in float64."""

from __future__ import annotations

from .activations import ActivationPair, SampleCounts
from .fitted import combine_layers
from .methods import METHODS, Method, find_method
from .receipt import Damage, DataSummary, Receipt
from .selection import (
    Candidate,
    Selection,
    select_by_effect,
    select_by_log_odds,
    select_by_separation,
)
from .separation import (
    Interval,
    bootstrap_cosine,
    bootstrap_separation,
    measure_separation,
    midpoint,
)

__all__ = [
    "METHODS",
    "ActivationPair",
    "Candidate",
    "Damage",
    "DataSummary",
    "Interval",
    "Method",
    "Receipt",
    "SampleCounts",
    "Selection",
    "bootstrap_cosine",
    "bootstrap_separation",
    "combine_layers",
    "find_method",
    "measure_separation",
    "midpoint",
    "select_by_effect",
    "select_by_log_odds",
    "select_by_separation",
]
