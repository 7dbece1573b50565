"""Score curves and cliffs of many rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from server.engine.request import GenerationRequest
from server.engine.sampling import SamplingParams
from steering.analysis import (
    NUM_POINTS,
    PLATEAU_TRIM,
    Cliff,
    JudgeRule,
    Padding,
    Plateau,
    align_right,
    measure_cliff,
    rank_rollouts,
    resample,
    sigmoid,
)
from steering.documents import Document, Integer, Number
from steering.errors import InvalidFieldError
from steering.plan import PlannedMonitor, SteeringPlan

from .examples.example import Example, example_list, place_examples
from .examples.variables import TemplateVariables
from .instrument import Instrument
from .probe import Probe, YesOrNo, probe_document
from .rollout import Rollout, read_rollout

_MAX_POINTS: Final = 1000

MAX_CONVERSATIONS: Final = 256
"""Most rollouts of one request; more go through a job."""


class CliffQuery(Document):
    """What is asked about the cliffs of a set of rollouts."""

    noun: ClassVar[str] = "a cliff request"
    subject: ClassVar[str] = "the request"

    conversations: Annotated[tuple[Example, ...], example_list(MAX_CONVERSATIONS)] = Field(
        description="Rollouts, each ending with the assistant's thought (and answer).",
        json_schema_extra={"minItems": 1, "maxItems": MAX_CONVERSATIONS},
    )
    chat_template_kwargs: TemplateVariables = Field(
        default_factory=dict, description="Variables of the chat template that they are written by."
    )
    probe: Probe = Field(description="What is read, and where.")
    thinking_portion: Number = Field(
        default=1.0,
        description="Share of each thought that is kept, from its start.",
        json_schema_extra={"minimum": 0, "maximum": 1},
    )
    trim: Integer = Field(
        default=PLATEAU_TRIM,
        description="Tokens at a thought's end that do not count towards its plateau.",
        json_schema_extra={"minimum": 0},
    )
    plateau: Plateau = Field(
        default=Plateau.MEAN,
        description="Whether plateaus and cliffs are of the thought's mean or its maximum.",
    )
    points: Integer = Field(
        default=NUM_POINTS,
        description="Of the average curve.",
        json_schema_extra={"minimum": 2, "maximum": _MAX_POINTS},
    )
    padding: Padding = Field(
        default=Padding.NONE, description="Before curves shorter than the longest."
    )
    curves: YesOrNo = Field(
        default=True, description="Whether the curve of each rollout is returned."
    )

    @field_validator("conversations")
    @classmethod
    def _place(cls, examples: tuple[Example, ...]) -> tuple[Example, ...]:
        return place_examples(examples, "conversations")

    @model_validator(mode="after")
    def _has_points(self) -> Self:
        if not 2 <= self.points <= _MAX_POINTS or self.trim < 0:
            raise InvalidFieldError(
                f"points is {self.points}, trim {self.trim}; expected 2 to {_MAX_POINTS}, and 0 or "
                "more",
                param="trim" if self.trim < 0 else "points",
            )
        return self

    def rollouts(self, tokenizer: Any, max_tokens: int) -> list[Rollout]:
        """The conversations in tokens.

        Raises:
            InvalidFieldError, EngineError: As `read_rollout`.
        """
        return [
            read_rollout(
                *(tokenizer, example, max_tokens),
                portion=self.thinking_portion,
                variables=self.chat_template_kwargs,
            )
            for example in self.conversations
        ]


@dataclass(frozen=True, eq=False, slots=True)
class RolloutCurve:
    """The probe's probability at every token of a rollout.

    Attributes:
        rollout: The rollout in tokens.
        curve: [T] probabilities, 0 to 1, one a token.
        cliffs: Plateau and fall, by how the plateau is taken; None where the thought was emptied,
            which leaves no plateau.
    """

    rollout: Rollout
    curve: NDArray[np.float64]
    cliffs: Mapping[Plateau, Cliff] | None

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
        cliffs = None
        if rollout.thought.num_tokens > 0:
            cliffs = {
                plateau: measure_cliff(curve, rollout.thought, trim=trim, plateau=plateau)
                for plateau in Plateau
            }
        found.append(RolloutCurve(rollout, curve, cliffs))
    return found


def cliff_document(
    curves: Sequence[RolloutCurve], query: CliffQuery, probe: PlannedMonitor
) -> dict[str, Any]:
    """Return the answer of an analysis: each rollout, their average, and rankings for training."""
    aligned = align_right([found.curve for found in curves], padding=query.padding)
    measured = [found.cliffs for found in curves if found.cliffs is not None]
    complete = measured if len(measured) == len(curves) else []
    cliffs = [by_plateau[query.plateau] for by_plateau in complete]
    return {
        "probe": probe_document(probe),
        "conversations": [_rollout(found, query) for found in curves],
        "average": {
            "num_conversations": len(curves),
            "curve": resample(aligned.mean, query.points).tolist(),
            "longest": len(aligned.mean),
            "plateau": _mean([c.plateau for c in cliffs]),
            "final": _mean([found.final for found in curves]),
            "cliff": _mean([c.cliff for c in cliffs]),
            "plateaus": {
                how.value: _mean([by_plateau[how].plateau for by_plateau in complete])
                for how in Plateau
            },
        },
        "ranking": {rule.value: list(rank_rollouts(cliffs, rule)) for rule in JudgeRule},
    }


def _rollout(found: RolloutCurve, query: CliffQuery) -> dict[str, Any]:
    thought, cliffs = found.rollout.thought, found.cliffs
    cliff = None if cliffs is None else cliffs[query.plateau]
    document: Mapping[str, Any] = {
        "num_tokens": thought.end,
        "thought": [thought.start, thought.stop],
        "plateau": None if cliff is None else cliff.plateau,
        "final": found.final,
        "cliff": None if cliff is None else cliff.cliff,
        "plateaus": {how.value: None if cliffs is None else cliffs[how].plateau for how in Plateau},
    }
    return {**document, "curve": found.curve.tolist()} if query.curves else {**document}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
