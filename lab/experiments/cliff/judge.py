"""Cliff-as-a-Judge: what a ranking by cliff picks, against picking at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, hypergeom, mannwhitneyu

from lab.experiments.estimate import LEVEL, Estimate
from steering.analysis import JudgeRule, num_selected, rank_rollouts

from .probe import Probe
from .rollouts import Rollout

FRACTIONS: Final = (0.017, 0.05, 0.125, 0.25, 0.5)
_RESAMPLES: Final = 500


def judge_rollouts(
    probes: Mapping[str, Probe], pools: Mapping[str, Sequence[Rollout]]
) -> list[dict[str, Any]]:
    """JSON: of the rollouts each rule picks first, how many decline in thought and comply.

    Rankings see the tokens before the answer only.
    """
    rows = []
    for pool, rollouts in pools.items():
        wanted = np.array([r.complies_after_declining for r in rollouts])
        for name, probe in probes.items():
            cliffs = probe.cliffs(rollouts)
            for rule in JudgeRule:
                order = rank_rollouts(cliffs, rule)
                keys = [c.cliff if rule is JudgeRule.CLIFF else -c.final for c in cliffs]
                rows.append(
                    {
                        "pool": pool,
                        "probe": name,
                        "rule": rule.value,
                        "auc": _auc(np.array(keys), wanted),
                        "picked": [_picked(wanted, order, f) for f in FRACTIONS],
                    }
                )
    return rows


def _picked(wanted: NDArray[np.bool_], order: Sequence[int], fraction: float) -> dict[str, Any]:
    count = num_selected(len(wanted), fraction)
    hits = int(wanted[list(order[:count])].sum())
    low, high = hypergeom.interval(LEVEL, len(wanted), int(wanted.sum()), count)
    return {
        "fraction": fraction,
        "share": Estimate.share(hits, count).to_dict(),
        "random": Estimate(float(wanted.mean()), low / count, high / count, count).to_dict(),
    }


def _auc(keys: NDArray[np.float64], wanted: NDArray[np.bool_]) -> dict[str, float] | None:
    """Chance that a wanted rollout ranks above another; None without two of each."""
    groups = keys[wanted], keys[~wanted]
    if min(map(len, groups)) < 2:
        return None

    def area(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
        rank_sum = mannwhitneyu(positive, negative, method="asymptotic").statistic
        return float(rank_sum / (len(positive) * len(negative)))

    found = bootstrap(
        groups,
        area,
        n_resamples=_RESAMPLES,
        vectorized=False,
        method="percentile",
        confidence_level=LEVEL,
        rng=np.random.default_rng(0),
    )
    low, high = found.confidence_interval
    return Estimate(area(*groups), float(low), float(high), len(keys)).to_dict()
