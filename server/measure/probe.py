"""The probe an analysis reads: from its field in a request to where it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from steering.directions import Direction, DirectionKind
from steering.documents import Monitor, refused
from steering.errors import IncompatibleOperationError
from steering.model_spec import ModelSpec
from steering.plan import MonitorUse, PlannedMonitor, compile_plan


def _probe(value: Any) -> Any:
    if isinstance(value, str):
        return {"direction": value}
    if not isinstance(value, Mapping | Monitor):
        raise refused("is neither a name nor an object")
    return value


Probe = Annotated[
    Monitor,
    BeforeValidator(_probe, json_schema_input_type=str | Monitor),
]
"""The member `probe` of a request: `"name@1"`, or `{"direction", "layer", "site"}`."""


def _flag(value: Any) -> Any:
    if not isinstance(value, bool):
        raise refused("is not true or false")
    return value


YesOrNo = Annotated[bool, BeforeValidator(_flag)]


def plan_probe(monitor: Monitor, direction: Direction, spec: ModelSpec) -> PlannedMonitor:
    """Return `direction` read as `monitor` says, compiled for the model.

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


def probe_document(probe: PlannedMonitor) -> dict[str, Any]:
    """Return a probe and where it was read, as every analysis reports it."""
    layer, site = probe.point
    return {"direction": probe.label, "layer": layer, "site": site.value}
