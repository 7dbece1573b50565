"""Probes that score how close the model is to refusing, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.corpus import THINKING
from lab.experiments.estimate import Estimate
from steering.analysis import Cliff, align_right, measure_cliff, score_table, sigmoid
from steering.fit.fitters.probe import fit_probe
from steering.plan import SteeringPlan
from steering.sites import Site, SitePoint

from .rollouts import Rollout, ThinkingLaboratory

WINDOW = 40
"""Tokens before the answer that curves show."""

_Curve = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Probe:
    """s(h) = sigmoid(h . w + b) of the state after the final norm, where an answer would begin.

    Attributes:
        laboratory: Where it reads.
        weight: w [d].
        bias: b.
    """

    laboratory: ThinkingLaboratory
    weight: NDArray[np.float64]
    bias: float

    def curves(self, rollouts: Sequence[Rollout], plan: SteeringPlan | None = None) -> list[_Curve]:
        """Scores of every token of prompt and thought."""
        states = _states(self.laboratory, rollouts, plan)
        return [
            sigmoid(score_table(rows.double().numpy(), self.weight[None], [self.bias])[0])
            for rows in states
        ]

    def cliffs(self, rollouts: Sequence[Rollout], plan: SteeringPlan | None = None) -> list[Cliff]:
        """Plateau, final and cliff of each rollout."""
        curves = self.curves(rollouts, plan)
        return [measure_cliff(c, r.span) for c, r in zip(curves, rollouts, strict=True)]

    def group(self, rollouts: Sequence[Rollout]) -> dict[str, Any]:
        """JSON of a set: its means, and its mean curve aligned where answers begin."""
        if len(rollouts) < 2:
            return {"n": len(rollouts)}
        cliffs = self.cliffs(rollouts)
        mean = align_right(self.curves(rollouts)).mean[-WINDOW:]
        return {
            "n": len(rollouts),
            "plateau": Estimate.mean([c.plateau for c in cliffs]).to_dict(),
            "final": Estimate.mean([c.final for c in cliffs]).to_dict(),
            "cliff": Estimate.mean([c.cliff for c in cliffs]).to_dict(),
            "curve": [round(float(value), 4) for value in mean],
        }

    def accuracy(self, refused: Sequence[Rollout], complied: Sequence[Rollout]) -> dict[str, Any]:
        """JSON: share on the right side of one half where the answer begins."""
        hits = [c.final > 0.5 for c in self.cliffs(refused)]
        hits += [c.final <= 0.5 for c in self.cliffs(complied)]
        return Estimate.share(sum(hits), len(hits)).to_dict()


def train_probe(
    laboratory: ThinkingLaboratory, refused: Sequence[Rollout], complied: Sequence[Rollout]
) -> Probe:
    """Fit on the last token before the answer."""
    positive, negative = (
        torch.stack([rows[-1] for rows in _states(laboratory, rollouts, None)])
        for rollouts in (refused, complied)
    )
    layer = laboratory.spec.num_layers - 1
    tensors = fit_probe(positive, negative, name="refusal", layer=layer, site=Site.FINAL).tensors
    return Probe(laboratory, tensors["weight"].double().numpy(), float(tensors["bias"]))


def _states(
    laboratory: ThinkingLaboratory, rollouts: Sequence[Rollout], plan: SteeringPlan | None
) -> tuple[Tensor, ...]:
    point = SitePoint(laboratory.spec.num_layers - 1, Site.FINAL)
    read = laboratory.sequences(
        [r.prompt for r in rollouts],
        [point],
        texts=[r.prefix for r in rollouts],
        system=THINKING,
        plan=plan,
    )
    return read[point]
