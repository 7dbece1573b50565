"""From a gate and its direction to what is read at each point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from steering.compatibility import check_direction, check_place
from steering.directions import Direction, DirectionKind
from steering.documents import Gate, Measure, Per
from steering.errors import IncompatibleOperationError, InvalidFieldError
from steering.model_spec import ModelSpec
from steering.sites import Site, SitePoint

from .planned_gate import PlannedGate

__all__ = ["compile_gate"]

_READ: Final = {
    DirectionKind.VECTOR: "vector",
    DirectionKind.PROBE: "weight",
    DirectionKind.PLANE: "basis",
}
_OF_PROBES: Final = frozenset({Measure.LOGIT, Measure.PROBABILITY})


def compile_gate(
    gate: Gate, direction: Direction, edited: Sequence[SitePoint], spec: ModelSpec
) -> tuple[PlannedGate, ...]:
    """The gate of an intervention that edits at `edited`: one per request, else one per edit.

    Raises:
        SteeringError: With `param` naming the gate's field.
    """
    check_direction(direction, spec)
    _check_kind(gate, direction)
    site = gate.site or direction.site
    spec.require_site(site, editable=False)
    if gate.per is Per.REQUEST:
        layer = direction.layers[0] if gate.layer is None else gate.layer
        return (_at(gate, direction, SitePoint(layer, site), spec),)
    return tuple(_token_gate(gate, direction, site, point, spec) for point in edited)


def _token_gate(
    gate: Gate, direction: Direction, site: Site, edited: SitePoint, spec: ModelSpec
) -> PlannedGate:
    layer = edited.layer if gate.layer is None else gate.layer
    planned = _at(gate, direction, SitePoint(layer, site), spec)
    if planned.point.rank > edited.rank:
        raise InvalidFieldError(
            f"the gate reads {site.value!r} of layer {layer}, which is computed after "
            f"{edited.site.value!r} of layer {edited.layer}, where the intervention acts; read "
            "there or earlier, or decide per request",
            param="layer" if layer > edited.layer else "site",
        )
    return planned


def _at(gate: Gate, direction: Direction, point: SitePoint, spec: ModelSpec) -> PlannedGate:
    spec.require_layer(point.layer, param="layer")
    check_place(direction, point.site, (point.layer,), spec, param="layer")
    tensors = direction.at(point.layer)
    vector = tensors[_READ[direction.kind]]
    if direction.kind is DirectionKind.PLANE:
        vector = vector[0]
    if gate.measure in _OF_PROBES:
        return PlannedGate(gate, direction.reference, point, vector, float(tensors["bias"]))
    return PlannedGate(gate, direction.reference, point, vector / vector.norm(), 0.0)


def _check_kind(gate: Gate, direction: Direction) -> None:
    kinds = [DirectionKind.PROBE] if gate.measure in _OF_PROBES else list(_READ)
    if direction.kind not in kinds:
        raise IncompatibleOperationError(
            f"direction {direction.reference} is of kind {direction.kind.value!r}; a gate that "
            f"measures {gate.measure.value!r} expects "
            f"{' or '.join(repr(kind.value) for kind in kinds)}",
            param="direction",
        )
