"""Score curves and cliffs of many rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.engine.request import GenerationRequest
from server.engine.sampling import SamplingParams
from steering.analysis import (
    Cliff,
    JudgeRule,
    align_right,
    measure_cliff,
    rank_rollouts,
    resample,
    sigmoid,
)
from steering.plan import PlannedMonitor, SteeringPlan

from .cliff_query import CliffQuery
from .instrument import Instrument
from .probe_point import probe_document
from .rollout import Rollout

__all__ = ["RolloutCurve", "cliff_document", "measure_rollouts"]


@dataclass(frozen=True, eq=False, slots=True)
class RolloutCurve:
    """The probe's probability at every token of a rollout.

    Attributes:
        rollout: Its tokens.
        curve: [T], 0 to 1.
        cliff: None where the thought was emptied: then there is no plateau.
    """

    rollout: Rollout
    curve: NDArray[np.float64]
    cliff: Cliff | None

    @property
    def final(self) -> float:
        """Score of the last token before the answer."""
        return float(self.curve[-1])


async def measure_rollouts(
    instrument: Instrument, rollouts: Sequence[Rollout], plan: SteeringPlan, trim: int
) -> list[RolloutCurve]:
    """Read the plan's one monitor, a probe, over every token of each rollout.

    Raises:
        EngineError: As `Engine.generate`.
        InvalidFieldError: `trim` is negative.
    """
    read = await instrument.readings(
        [
            GenerationRequest(
                request_id="",
                prompt_token_ids=rollout.token_ids,
                sampling=SamplingParams(max_tokens=0),
                plan=plan,
                prompt_regions=rollout.regions,
                steering_prompt_tokens=rollout.num_prompt_tokens,
                monitor_prompt=True,
            )
            for rollout in rollouts
        ]
    )
    found = []
    for rollout, [reading] in zip(rollouts, read, strict=True):
        curve = sigmoid(reading.scores)
        has_thought = rollout.thought.num_tokens > 0
        cliff = measure_cliff(curve, rollout.thought, trim=trim) if has_thought else None
        found.append(RolloutCurve(rollout, curve, cliff))
    return found


def cliff_document(
    curves: Sequence[RolloutCurve], query: CliffQuery, probe: PlannedMonitor
) -> dict[str, Any]:
    """What an analysis answers: each rollout, their average, and who to train on first."""
    aligned = align_right([found.curve for found in curves], padding=query.padding)
    cliffs = [found.cliff for found in curves if found.cliff is not None]
    complete = cliffs if len(cliffs) == len(curves) else []
    return {
        "probe": probe_document(probe),
        "conversations": [_rollout(found, with_curve=query.curves) for found in curves],
        "average": {
            "num_conversations": len(curves),
            "curve": resample(aligned.mean, query.points).tolist(),
            "longest": len(aligned.mean),
            "plateau": _mean([c.plateau for c in complete]),
            "final": _mean([found.final for found in curves]),
            "cliff": _mean([c.cliff for c in complete]),
        },
        "ranking": {rule.value: list(rank_rollouts(complete, rule)) for rule in JudgeRule},
    }


def _rollout(found: RolloutCurve, *, with_curve: bool) -> dict[str, Any]:
    thought, cliff = found.rollout.thought, found.cliff
    document: Mapping[str, Any] = {
        "num_tokens": thought.end,
        "thought": [thought.start, thought.stop],
        "plateau": None if cliff is None else cliff.plateau,
        "final": found.final,
        "cliff": None if cliff is None else cliff.cliff,
    }
    return {**document, "curve": found.curve.tolist()} if with_curve else {**document}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
