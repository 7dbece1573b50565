"""Looking inside: pure functions of scores and activations, in float64."""

from __future__ import annotations

from .cliff import (
    PLATEAU_TRIM,
    Cliff,
    JudgeRule,
    Plateau,
    ThoughtSpan,
    measure_cliff,
    num_selected,
    rank_rollouts,
)
from .curves import NUM_POINTS, Padding, align_right, resample, score_table, sigmoid
from .heads import (
    Head,
    HeadScore,
    attribute_heads,
    head_count,
    heads_direction,
    random_heads,
    rank_heads,
)

__all__ = [
    "NUM_POINTS",
    "PLATEAU_TRIM",
    "Cliff",
    "Head",
    "HeadScore",
    "JudgeRule",
    "Padding",
    "Plateau",
    "ThoughtSpan",
    "align_right",
    "attribute_heads",
    "head_count",
    "heads_direction",
    "measure_cliff",
    "num_selected",
    "random_heads",
    "rank_heads",
    "rank_rollouts",
    "resample",
    "score_table",
    "sigmoid",
]
