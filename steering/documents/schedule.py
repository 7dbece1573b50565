"""How strength changes over the tokens of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from .document import Document, Variants, read, tagged
from .fields import Integer, Number, Within

MAX_RAMP: Final = 2**31 - 1
"""Longest ramp, in generated tokens."""

_Factors = NDArray[np.float64]


class ScheduleKind(StrEnum):
    """The form of a schedule."""

    CONSTANT = "constant"
    RAMP = "ramp"
    DECAY = "decay"


class Schedule(Document):
    """A factor on the strength, by t = the number of tokens generated up to this one.

    Prompt tokens have t = 0, the first generated token t = 1.
    """

    null_is_absent: ClassVar[bool] = False

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read `{"kind": "constant" | "ramp" | "decay", ...}`.

        Raises:
            SteeringError: An unknown kind or member, or a value out of range.
        """
        found = read(_ANY, document)
        assert isinstance(found, cls), "a schedule of one kind read as one of another"
        return found

    def factors(self, start: int, stop: int, num_prompt_tokens: int) -> _Factors:
        """The factor at each absolute position of [start, stop)."""
        tokens = np.arange(start, stop) - num_prompt_tokens + 1
        return self._at(np.maximum(tokens, 0).astype(np.float64))

    def _at(self, t: _Factors) -> _Factors:
        raise NotImplementedError

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest factor of a ramp; of the others 1 and 1, or less above 0."""
        return 1.0, 1.0

    @property
    def peak(self) -> float:
        """The largest size of its factor at any token."""
        return max(map(abs, self.bounds))


class ConstantSchedule(Schedule):
    """The factor 1 at every token."""

    noun: ClassVar[str] = "a constant schedule"

    kind: Literal[ScheduleKind.CONSTANT] = ScheduleKind.CONSTANT

    def _at(self, t: _Factors) -> _Factors:
        return np.ones(len(t))


class RampSchedule(Schedule):
    """The factor start + (end - start) * min(t / tokens, 1)."""

    model_config = tagged("kind")

    noun: ClassVar[str] = "a ramp schedule"

    end: Number = Field(default=1.0, description="Factor from t = tokens on.")
    kind: Literal[ScheduleKind.RAMP] = ScheduleKind.RAMP
    start: Number = Field(default=0.0, description="Factor at t = 0, on the prompt.")
    tokens: Annotated[
        Integer,
        Field(ge=1, le=MAX_RAMP),
        Within(f"an integer from 1 to {MAX_RAMP}", is_whole=True),
    ] = Field(default=1, description="Length of the ramp in generated tokens.")

    def _at(self, t: _Factors) -> _Factors:
        share = np.minimum(t / self.tokens, 1.0)
        return self.start * (1.0 - share) + self.end * share

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest factor at any token."""
        return min(self.start, self.end), max(self.start, self.end)


class DecaySchedule(Schedule):
    """The factor `factor ** t`."""

    model_config = tagged("kind")

    noun: ClassVar[str] = "a decay schedule"

    factor: Annotated[Number, Field(gt=0, le=1), Within("a number in (0, 1]")] = Field(
        default=1.0, description="Ratio of the factor from one token to the next."
    )
    kind: Literal[ScheduleKind.DECAY] = ScheduleKind.DECAY

    def _at(self, t: _Factors) -> _Factors:
        return np.power(self.factor, t)


CONSTANT: Final = ConstantSchedule()


AnySchedule = Annotated[Schedule, Variants("kind", ScheduleKind, ScheduleKind.CONSTANT)]
"""A schedule of any kind; without `kind` it is constant."""

_ANY: Final[TypeAdapter[Schedule]] = TypeAdapter(AnySchedule)
