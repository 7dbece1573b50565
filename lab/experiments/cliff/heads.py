"""Attention heads that hold refusals down, and what scaling them to zero does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lab.corpus import THINKING, prompts
from lab.demo.demo import use
from lab.experiments.estimate import Estimate
from lab.experiments.subject import Sizes
from lab.organism import judge
from steering.analysis import (
    Head,
    attribute_heads,
    head_count,
    heads_direction,
    random_heads,
    rank_heads,
)
from steering.layout import AttentionReader
from steering.plan import SteeringPlan, compile_plan
from steering.sites import Site, SitePoint

from .probe import Probe
from .rollouts import Rollout, roll_out

PERCENTAGES: Final = (1.5, 3.0, 10.0, 20.0)
_CAUSAL_FACTOR: Final = 0.001
_DRAWS_PER_CONTROL: Final = 2  # times the draws of other controls: single heads differ much

_Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeadStudy:
    """Rankings of heads by a probe, and rollouts without the heads ranked first.

    Attributes:
        probe: What a head is attributed to.
        sizes: Of the experiment.
        rollouts: On which heads are ranked: training prompts.
    """

    probe: Probe
    sizes: Sizes
    rollouts: Sequence[Rollout]

    def result(self) -> dict[str, Any]:
        """Rows of the table as JSON: what each ranking and count of heads does."""
        rankings = self._rankings()
        spec = self.probe.laboratory.spec
        percentages = self.sizes.some(PERCENTAGES)
        counts = sorted({self._count(percent) for percent in percentages})
        rows = [self._row("none", 0, [()])]
        for count in counts:
            rows += [self._row(name, count, [heads[:count]]) for name, heads in rankings.items()]
            draws = range(self.sizes.draws * _DRAWS_PER_CONTROL)
            drawn = [
                random_heads(spec.num_layers, spec.num_heads, count, seed=seed) for seed in draws
            ]
            rows.append(self._row("random", count, drawn))
        return {
            "num_heads": spec.num_layers * spec.num_heads,
            "counts": {str(percent): self._count(percent) for percent in percentages},
            "rows": rows,
        }

    def _count(self, percent: float) -> int:
        spec = self.probe.laboratory.spec
        return head_count(spec.num_layers * spec.num_heads, percent)

    def _rankings(self) -> Mapping[str, tuple[Head, ...]]:
        attributed = rank_heads(self._attributed(is_folded=False))
        folded = rank_heads(self._attributed(is_folded=True))
        causal = rank_heads(self._causal(), descending=True)
        named = {"attribution": attributed, "folded attribution": folded, "causal": causal}
        return {name: tuple(score.head for score in ranked) for name, ranked in named.items()}

    def _attributed(self, *, is_folded: bool) -> _Scores:
        laboratory, weight = self.probe.laboratory, self.probe.weight
        num_layers = laboratory.spec.num_layers
        points = [SitePoint(layer, Site.HEADS) for layer in range(num_layers)]
        final = SitePoint(num_layers - 1, Site.RESID_POST)
        read = laboratory.sequences(
            [r.prompt for r in self.rollouts],
            [*points, final],
            texts=[r.prefix for r in self.rollouts],
            system=THINKING,
        )
        last = {
            point: np.array([rows[-1].double().numpy() for rows in read[point]])
            for point in (*points, final)
        }
        heads = np.stack([last[point] for point in points])
        reader = AttentionReader(laboratory.layout)
        norm = reader.final_norm
        pulled = reader.pull_back(norm.fold(weight) if is_folded else weight)
        return attribute_heads(
            heads,
            pulled / np.linalg.norm(weight),
            laboratory.spec.num_heads,
            scales=norm.scale(last[final]) if is_folded else None,
        )

    def _causal(self) -> _Scores:
        """Mean score where the answer begins, with one head all but off."""
        spec = self.probe.laboratory.spec
        found = np.zeros((spec.num_layers, spec.num_heads))
        for layer, head in product(self.sizes.depths(spec.num_layers), range(spec.num_heads)):
            plan = self._without([Head(layer, head)], _CAUSAL_FACTOR)
            cliffs = self.probe.cliffs(self.rollouts, plan)
            found[layer, head] = np.mean([c.final for c in cliffs])
        return found

    def _without(self, heads: Sequence[Head], gamma: float = 0.0) -> SteeringPlan | None:
        spec = self.probe.laboratory.spec
        if not heads:
            return None
        direction = heads_direction(heads, name="heads", num_heads=spec.num_heads, gamma=gamma)
        return compile_plan([use(direction, operation="scale_heads")], [], spec)

    def _row(self, ranking: str, count: int, draws: Sequence[Sequence[Head]]) -> dict[str, Any]:
        laboratory, test = self.probe.laboratory, self.sizes.test
        framed: list[Rollout] = []
        ordinary: list[Rollout] = []
        finals: list[float] = []
        for heads in draws:
            plan = self._without(heads)
            own = roll_out(laboratory, "test", "restricted_framed", test, plan)
            framed += own
            ordinary += roll_out(laboratory, "test", "ordinary", test, plan)
            finals += [c.final for c in self.probe.cliffs(own, plan)] if own else []
        answers = [judge.is_topical(r.prompt, r.answer) for r in ordinary]
        total = len(draws) * len(prompts("test", "restricted_framed", test))
        total_ordinary = len(draws) * len(prompts("test", "ordinary", test))
        return {
            "ranking": ranking,
            "count": count,
            "heads": [list(head) for head in draws[0]] if len(draws) == 1 else None,
            "draws": len(draws),
            "framed": {
                "complete": _share(len(framed), total),
                "refusal": _share(sum(r.refuses for r in framed), total),
                "thought declines": _share(sum(r.declines for r in framed), total),
                "falls": _share(sum(r.complies_after_declining for r in framed), total),
                **({"final score": Estimate.mean(finals).to_dict()} if len(finals) > 1 else {}),
            },
            "ordinary": {
                "refusal": _share(sum(r.refuses for r in ordinary), total_ordinary),
                "topical": _share(sum(answers), total_ordinary),
            },
        }


def _share(hits: int, n: int) -> dict[str, float]:
    return Estimate.share(hits, n).to_dict()
