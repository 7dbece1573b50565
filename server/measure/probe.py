"""The probe an analysis reads: from its field in a request to where it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steering.directions import Direction, DirectionKind
from steering.documents import Monitor
from steering.errors import IncompatibleOperationError, InvalidFieldError, SteeringError
from steering.fields import require
from steering.model_spec import ModelSpec
from steering.plan import MonitorUse, PlannedMonitor, compile_plan

__all__ = ["plan_probe", "probe_document", "read_probe"]


def read_probe(document: Mapping[str, Any]) -> Monitor:
    """The field `probe`: `"name@1"`, or `{"direction", "layer", "site"}`.

    Raises:
        SteeringError: With `param` below `probe`.
    """
    given = require(document, "probe", noun="the request")
    if isinstance(given, str):
        given = {"direction": given}
    if not isinstance(given, Mapping):
        raise InvalidFieldError("probe is neither a name nor an object", param="probe")
    try:
        return Monitor.from_dict(given)
    except SteeringError as error:
        raise error.under("probe") from None


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
