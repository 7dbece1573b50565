"""A probe where it is to be read."""

from __future__ import annotations

from steering.directions import Direction, DirectionKind
from steering.errors import IncompatibleOperationError
from steering.model_spec import ModelSpec
from steering.plan import MonitorUse, PlannedMonitor, compile_plan
from steering.profiles import Monitor

__all__ = ["plan_probe"]


def plan_probe(monitor: Monitor, direction: Direction, spec: ModelSpec) -> PlannedMonitor:
    """`direction` read as `monitor` says, compiled for the model.

    Raises:
        IncompatibleOperationError: It is no probe: only a probe's score is a log-odds, of which
            plateaus and cliffs are made.
        SteeringError: It does not fit the layer, the site or the model.
    """
    if direction.kind is not DirectionKind.PROBE:
        raise IncompatibleOperationError(
            f"direction {direction.reference} is of kind {direction.kind.value!r}; expected a "
            "probe, with weight and bias",
            param="probe",
        )
    [planned] = compile_plan([], [MonitorUse(monitor, direction, "probe")], spec).monitors
    return planned
