"""Whether an answer was steered as its arm asks; one that was not ends the evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from coxswain_client.models.steering import AppliedSteering

from .arm import Arm
from .errors import AppliedMismatchError

__all__ = ["check_applied"]

_PATH: Final = "path"  # a profile's own when it is checked, the request's when it is used
_GATE_STATES: Final = "states"  # differ by answer
_TOLERANCE: Final = 1e-6  # of strengths, relative


def check_applied(arm: Arm, report: AppliedSteering) -> None:
    """Compare an answer's applied report with what the arm expects.

    Raises:
        AppliedMismatchError: They differ, or the profile is not the one asked for.
    """
    if len(report.applied) != len(arm.expected):
        raise AppliedMismatchError(
            f"{arm.name}: {len(report.applied)} interventions were applied; "
            f"expected {len(arm.expected)}"
        )
    for index, (found, wanted) in enumerate(zip(report.applied, arm.expected, strict=True)):
        for key, value in wanted.items():
            if key != _PATH and not _agrees(found.get(key), value):
                raise AppliedMismatchError(
                    f"{arm.name}: applied[{index}].{key} is {found.get(key)!r}; expected {value!r}"
                )
    _check_profile(arm, report)


def _check_profile(arm: Arm, report: AppliedSteering) -> None:
    asked = arm.steering.get("profile", "none")
    found = "none" if report.profile is None else f"{report.profile}@{report.version}"
    if found != asked:
        raise AppliedMismatchError(f"{arm.name}: profile {found!r} was applied, not {asked!r}")


def _agrees(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(found, int | float):
        return math.isclose(found, wanted, rel_tol=_TOLERANCE, abs_tol=1e-12)
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        is_same = found.keys() - {_GATE_STATES} == wanted.keys()
        return is_same and all(_agrees(found[key], wanted[key]) for key in wanted)
    return bool(found == wanted)
