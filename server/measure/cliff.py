"""Score curves and cliffs of many rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from server.engine.request import GenerationRequest
from server.engine.sampling import SamplingParams
from steering.analysis import (
    NUM_POINTS,
    PLATEAU_TRIM,
    Cliff,
    JudgeRule,
    Padding,
    align_right,
    measure_cliff,
    rank_rollouts,
    resample,
    sigmoid,
)
from steering.documents import Monitor
from steering.errors import InvalidFieldError
from steering.fields import check_keys, integer, member, number
from steering.plan import PlannedMonitor, SteeringPlan

from .examples.example import Example, read_examples
from .instrument import Instrument
from .probe import probe_document, read_probe
from .rollout import Rollout, read_rollout

__all__ = ["CliffQuery", "RolloutCurve", "cliff_document", "measure_rollouts"]

_FIELDS: Final = frozenset(
    {"conversations", "probe", "thinking_portion", "trim", "points", "padding", "curves"}
)
_MAX_POINTS: Final = 1000


@dataclass(frozen=True, slots=True)
class CliffQuery:
    """A checked request for cliffs.

    Attributes:
        conversations: Rollouts, each ending with the assistant's thought (and answer).
        probe: What is read, and where.
        thinking_portion: Share of each thought that is kept, from its start.
        trim: Tokens at a thought's end that do not count towards its plateau.
        points: Of the average curve.
        padding: Before curves shorter than the longest.
        curves: Whether the curve of each rollout is returned.
    """

    conversations: tuple[Example, ...]
    probe: Monitor
    thinking_portion: float = 1.0
    trim: int = PLATEAU_TRIM
    points: int = NUM_POINTS
    padding: Padding = Padding.NONE
    curves: bool = True

    @classmethod
    def from_document(cls, document: Mapping[str, Any], *, most: int, curves: bool = True) -> Self:
        """Read `{"conversations": [[...messages]], "probe": "refusal-probe@1", ...}`.

        Args:
            document: The request.
            most: Largest number of conversations.
            curves: Default of that field.

        Raises:
            SteeringError: With `param` naming the field.
        """
        check_keys(document, _FIELDS, noun="a cliff request")
        points = integer(document.get("points", NUM_POINTS), "points")
        trim = integer(document.get("trim", PLATEAU_TRIM), "trim")
        if not 2 <= points <= _MAX_POINTS or trim < 0:
            param = "trim" if trim < 0 else "points"
            raise InvalidFieldError(
                f"points is {points}, trim {trim}; expected 2 to {_MAX_POINTS}, and 0 or more",
                param=param,
            )
        wants_curves = document.get("curves", curves)
        if not isinstance(wants_curves, bool):
            raise InvalidFieldError("curves is not true or false", param="curves")
        return cls(
            conversations=read_examples(document, "conversations", most=most),
            probe=read_probe(document),
            thinking_portion=number(document.get("thinking_portion", 1.0), "thinking_portion"),
            trim=trim,
            points=points,
            padding=member(Padding, document.get("padding", Padding.NONE), "padding"),
            curves=wants_curves,
        )

    def rollouts(self, tokenizer: Any, max_tokens: int) -> list[Rollout]:
        """The conversations in tokens.

        Raises:
            InvalidFieldError, EngineError: As `read_rollout`.
        """
        return [
            read_rollout(tokenizer, example, max_tokens, portion=self.thinking_portion)
            for example in self.conversations
        ]


@dataclass(frozen=True, eq=False, slots=True)
class RolloutCurve:
    """The probe's probability at every token of a rollout.

    Attributes:
        rollout: The rollout in tokens.
        curve: [T] probabilities, 0 to 1, one a token.
        cliff: Plateau and fall; None where the thought was emptied, which leaves no plateau.
    """

    rollout: Rollout
    curve: NDArray[np.float64]
    cliff: Cliff | None

    @property
    def final(self) -> float:
        """The probability at the last token before the answer."""
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
    """Return the answer of an analysis: each rollout, their average, and rankings for training."""
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
