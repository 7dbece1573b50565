"""The errors of a choice of steering, beyond those of the steering itself.

InvalidSteeringError
|-- SteeringConflictError       two explicit choices of a profile disagree
|-- StrengthOutOfRangeError     a strength that the profile does not offer
|-- NothingToCompareError       a comparison of an answer that is not steered
`-- InvalidProfileError         everything that is wrong with a profile, at once
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steering.errors import CoxswainError


class InvalidSteeringError(CoxswainError):
    """A choice of steering that cannot be honoured."""

    code = "invalid_steering"


class SteeringConflictError(InvalidSteeringError):
    """Two explicit choices of a profile disagree."""

    code = "steering_conflict"


class StrengthOutOfRangeError(InvalidSteeringError):
    """A strength outside [0, max_strength] without `ignore_max_strength`."""

    code = "strength_out_of_range"


class NothingToCompareError(InvalidSteeringError):
    """A comparison is asked for, but nothing is steered."""

    code = "nothing_to_compare"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: which field, and why."""

    code: str
    param: str | None
    message: str


class InvalidProfileError(InvalidSteeringError):
    """A profile cannot be saved.

    Attributes:
        problems: Everything that is wrong, in the profile's order; at least one.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        super().__init__(first.message + more, param=first.param)
        self.problems = tuple(problems)
        self.code = first.code  # type: ignore[misc]
