"""One way of steering that an evaluation asks with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, cast

from coxswain_client.models.steering import AppliedSteering, SteeringOptions

from .errors import SteeringMismatchError

_PATH_FIELD: Final = "path"  # a profile's own when it is checked, the request's when it is used
_GATE_STATES: Final = "states"  # differ by answer
_TOLERANCE: Final = 1e-6  # of strengths, relative


class Role(StrEnum):
    """What an arm is for."""

    NO_OP = "no-op"
    TREATMENT = "treatment"
    RANDOM = "random"
    ADDITION = "addition"


@dataclass(frozen=True)
class Arm:
    """A treatment at one strength, or a control.

    Attributes:
        name: Unique in the evaluation.
        role: What the arm is for.
        steering: The `steering` object of its requests.
        treatment: Name of the treatment it is or controls; None for the no-op.
        strength: Factor on the treatment's strengths.
        expected: What the applied report of each answer must say, per intervention.
        doses: |change of h| in mean residual norms: per intervention, by layer; None where it is
            not known.
        note: How its dose was found, or why there is nothing to ask.
        same_as: Name of an arm with the same steering, whose answers are this one's too.
    """

    name: str
    role: Role
    steering: Mapping[str, Any]
    treatment: str | None = None
    strength: float | None = None
    expected: Sequence[Mapping[str, Any]] = ()
    doses: Sequence[Mapping[str, float | None]] = field(default_factory=tuple)
    note: str = ""
    same_as: str | None = None

    @property
    def dose(self) -> float | None:
        """The dose summed over interventions and layers; None where any is not known."""
        values = [value for doses in self.doses for value in doses.values()]
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    def options(self, **more: Any) -> SteeringOptions:
        """The `steering` object of its requests, with further members."""
        return cast("SteeringOptions", {**self.steering, **more})

    def document(self) -> dict[str, Any]:
        """The arm as JSON, for the record of the run."""
        return {
            "name": self.name,
            "role": self.role.value,
            "treatment": self.treatment,
            "strength": self.strength,
            "steering": dict(self.steering),
            "expected": [dict(entry) for entry in self.expected],
            "doses": [dict(doses) for doses in self.doses],
            "dose": self.dose,
            "note": self.note,
            "same_as": self.same_as,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Arm:
        """The arm that `document` wrote."""
        fields = {name: value for name, value in document.items() if name != "dose"}
        return cls(**{**fields, "role": Role(document["role"])})


def check_steering(arm: Arm, report: AppliedSteering) -> None:
    """Compare an answer's applied report with what the arm expects.

    Raises:
        SteeringMismatchError: They differ, or the profile is not the one asked for.
    """
    if len(report.applied) != len(arm.expected):
        raise SteeringMismatchError(
            f"{arm.name}: {len(report.applied)} interventions were applied; "
            f"expected {len(arm.expected)}"
        )
    for index, (found, wanted) in enumerate(zip(report.applied, arm.expected, strict=True)):
        for key, value in wanted.items():
            if key != _PATH_FIELD and not _agrees(found.get(key), value):
                raise SteeringMismatchError(
                    f"{arm.name}: applied[{index}].{key} is {found.get(key)!r}; expected {value!r}"
                )
    _check_profile(arm, report)


def _check_profile(arm: Arm, report: AppliedSteering) -> None:
    asked = arm.steering.get("profile", "none")
    found = "none" if report.profile is None else f"{report.profile}@{report.version}"
    if found != asked:
        raise SteeringMismatchError(f"{arm.name}: profile {found!r} was applied, not {asked!r}")


def _agrees(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(found, int | float):
        return math.isclose(found, wanted, rel_tol=_TOLERANCE, abs_tol=1e-12)
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        is_same = found.keys() - {_GATE_STATES} == wanted.keys()
        return is_same and all(_agrees(found[key], wanted[key]) for key in wanted)
    return bool(found == wanted)
