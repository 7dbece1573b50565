"""From interventions, their gates and directions to a plan."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from steering.compatibility import MAX_NORM, check_direction, check_place
from steering.directions import Direction, DirectionKind
from steering.documents import Add, Gate, Intervention, Measure, Monitor, Per, resolve_layers
from steering.errors import (
    IncompatibleOperationError,
    InvalidFieldError,
    NonFiniteError,
    NormTooLargeError,
    SteeringError,
)
from steering.model_spec import ModelSpec
from steering.operations import Edit, OperationContext, compile_edit
from steering.sites import Site, SitePoint

from .plan import PlannedMonitor, SteeringPlan
from .planned_intervention import Lane, PlannedEdit, PlannedGate, PlannedIntervention

# The tensor of a direction that a gate reads.
_READ_TENSOR: Final = {
    DirectionKind.VECTOR: "vector",
    DirectionKind.PROBE: "weight",
    DirectionKind.PLANE: "basis",
}
_STREAM: Final = frozenset({Site.RESID_PRE, Site.RESID_MID, Site.RESID_POST})
_ON_THE_STREAM: Final = _STREAM | {Site.EMBED, Site.ATTN_OUT, Site.MLP_OUT}
_OF_PROBES: Final = frozenset({Measure.LOGIT, Measure.PROBABILITY})


@dataclass(frozen=True, eq=False)
class Steer:
    """An intervention with the direction it names.

    Attributes:
        intervention: The intervention as the request states it.
        direction: The direction it refers to.
        factor: Multiplies the intervention's strength.
        resid_norms: Norms frozen into a profile version, instead of the model's own.
        path: Where it stands in the request, for errors.
        gate_direction: The direction its gate refers to, where it has a gate.
    """

    intervention: Intervention
    direction: Direction
    factor: float = 1.0
    resid_norms: Mapping[SitePoint, float] = field(default_factory=dict)
    path: str = ""
    gate_direction: Direction | None = None

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Every direction it uses."""
        gate = self.gate_direction
        return (self.direction,) if gate is None else (self.direction, gate)


@dataclass(frozen=True, eq=False)
class MonitorUse:
    """A monitor with the direction it names, and where it stands in the request."""

    monitor: Monitor
    direction: Direction
    path: str = ""


def compile_plan(
    steers: Sequence[Steer], monitors: Sequence[MonitorUse], spec: ModelSpec
) -> SteeringPlan:
    """Compile what a request asks, in order, against a model.

    Raises:
        SteeringError: The first problem; `param` names the field below the steer's path.
    """
    lanes = _LaneAssigner()
    planned: list[PlannedIntervention] = []
    for index, steer in enumerate(steers):
        path = steer.path or f"interventions[{index}]"
        try:
            planned.append(replace(_plan_intervention(steer, spec, lanes), path=path))
        except SteeringError as error:
            raise error.under(path) from None
    read = []
    for index, use in enumerate(monitors):
        try:
            read.append(_plan_monitor(use, spec))
        except SteeringError as error:
            raise error.under(use.path or f"monitors[{index}]") from None
    return SteeringPlan(_distinct(planned), tuple(read), spec.num_layers)


class _LaneAssigner:
    """Gives each edit its lane; one per plan, fed in the plan's order."""

    def __init__(self) -> None:
        self._last: dict[SitePoint, Lane] = {}

    def assign(self, point: SitePoint, edit: Edit, gate: PlannedGate | None) -> Lane:
        last = self._last.get(point)
        gate_point = None if gate is None else gate.point
        if last is None:
            lane = Lane(0, edit.form, edit.restore_norm, gate_point)
        elif not edit.reads and gate is None and last.takes_shifts:
            lane = last  # a plain shift reads nothing, so it may act together with its predecessor
        else:
            lane = Lane(last.stage + 1, edit.form, edit.restore_norm, gate_point)
        self._last[point] = lane
        return lane


def _plan_intervention(steer: Steer, spec: ModelSpec, lanes: _LaneAssigner) -> PlannedIntervention:
    asked, direction = steer.intervention, steer.direction
    check_direction(direction, spec)
    site = asked.site or direction.site
    spec.require_site(site, editable=True)
    layers = resolve_layers(asked.layers, direction.layers, spec.num_layers)
    check_place(direction, site, layers, spec)
    strength = asked.strength * steer.factor
    if isinstance(asked, Add) and asked.distribute:
        strength /= len(layers)
    points = [SitePoint(layer, site) for layer in layers]
    latch, token_gates = _plan_gate(steer, points, spec)
    edits = []
    for point, gate in zip(points, token_gates, strict=True):
        edit = _compile_at(steer, point, spec)
        _check_magnitude(edit, strength * asked.schedule.peak)
        lane = lanes.assign(point, edit, gate)
        edits.append(PlannedEdit(point, lane, edit, gate, _dose(edit, steer, point, spec)))
    return PlannedIntervention(
        key=_key(edits),
        intervention=asked,
        reference=direction.reference,
        strength=strength,
        layers=layers,
        site=site,
        edits=tuple(edits),
        latch=latch,
    )


def _plan_gate(
    steer: Steer, points: Sequence[SitePoint], spec: ModelSpec
) -> tuple[PlannedGate | None, Sequence[PlannedGate | None]]:
    """The gate of the request, and that of the tokens at each point."""
    gate, direction = steer.intervention.gate, steer.gate_direction
    if gate is None:
        return None, [None] * len(points)
    assert direction is not None, "a gate without its direction"
    try:
        planned = compile_gate(gate, direction, points, spec)
    except SteeringError as error:
        raise error.under("gate") from None
    if gate.per is Per.REQUEST:
        return planned[0], [None] * len(points)
    return None, planned


def _compile_at(steer: Steer, point: SitePoint, spec: ModelSpec) -> Edit:
    norm = steer.resid_norms.get(point, spec.resid_norms.get(point))
    return compile_edit(
        OperationContext(
            intervention=steer.intervention,
            kind=steer.direction.kind,
            tensors=steer.direction.at(point.layer),
            point=point,
            width=spec.width(point.site),
            head_dim=spec.head_dim,
            resid_norm=norm,
            write_bias_mean=spec.write_bias_means.get(point, 0.0),
        )
    )


def _dose(edit: Edit, steer: Steer, point: SitePoint, spec: ModelSpec) -> float | None:
    """Length of a plain push onto the residual stream, in mean residual norms of its layer."""
    if edit.shift is None or edit.reads or point.site not in _ON_THE_STREAM:
        return None
    stream = point if point.site in _STREAM else SitePoint(point.layer, Site.RESID_POST)
    norm = steer.resid_norms.get(stream, spec.resid_norms.get(stream))
    return float(edit.shift.norm()) / norm if norm else None


def _check_magnitude(edit: Edit, strength: float) -> None:
    written = [rows for rows in (edit.shift, edit.write) if rows is not None]
    longest = max((float(rows.norm(dim=-1).max()) for rows in written), default=0.0)
    dose = abs(strength) * max(longest, 1.0)
    if not math.isfinite(dose):
        raise NonFiniteError("strength is not finite with this direction", param="strength")
    if dose > MAX_NORM:
        raise NormTooLargeError(
            f"strength {strength:g} moves activations by {dose:.3g}; expected at most "
            f"{MAX_NORM:.3g}, which already drowns what the model computed",
            param="strength",
        )


def _key(edits: Sequence[PlannedEdit]) -> bytes:
    state = hashlib.blake2b(digest_size=16)
    for planned in edits:
        state.update(repr((planned.point, planned.lane)).encode())
        state.update(planned.edit.digest())
        state.update(b"-" if planned.gate is None else planned.gate.key)
    return state.digest()


def _distinct(planned: Sequence[PlannedIntervention]) -> tuple[PlannedIntervention, ...]:
    """Give repeated interventions keys of their own, so that each has its own gain column."""
    seen: dict[bytes, int] = {}
    result = []
    for item in planned:
        count = seen.get(item.key, 0)
        seen[item.key] = count + 1
        key = (
            item.key
            if count == 0
            else hashlib.blake2b(item.key + str(count).encode(), digest_size=16).digest()
        )
        result.append(replace(item, key=key))
    return tuple(result)


def _plan_monitor(use: MonitorUse, spec: ModelSpec) -> PlannedMonitor:
    direction = use.direction
    check_direction(direction, spec)
    layer = direction.layers[0] if use.monitor.layer is None else use.monitor.layer
    site = use.monitor.site or direction.site
    spec.require_site(site, editable=False)
    spec.require_layer(layer, param="layer")
    check_place(direction, site, (layer,), spec, param="layer")
    tensors = direction.at(layer)
    if direction.kind is DirectionKind.PROBE:
        vector, bias = tensors["weight"], float(tensors["bias"])
    elif direction.kind is DirectionKind.VECTOR:
        vector, bias = tensors["vector"] / tensors["vector"].norm(), 0.0
    else:
        raise IncompatibleOperationError(
            f"direction {direction.reference} is of kind {direction.kind.value!r}; a monitor "
            "expects 'vector' or 'probe'",
            param="direction",
        )
    return PlannedMonitor(direction.reference, SitePoint(layer, site), vector, bias)


def compile_gate(
    gate: Gate, direction: Direction, edited: Sequence[SitePoint], spec: ModelSpec
) -> tuple[PlannedGate, ...]:
    """The gate of an intervention that edits at `edited`: one per request, else one per edit.

    Raises:
        SteeringError: With `param` naming the gate's field.
    """
    check_direction(direction, spec)
    _check_gate_kind(gate, direction)
    site = gate.site or direction.site
    spec.require_site(site, editable=False)
    if gate.per is Per.REQUEST:
        layer = direction.layers[0] if gate.layer is None else gate.layer
        return (_gate_at(gate, direction, SitePoint(layer, site), spec),)
    return tuple(_token_gate(gate, direction, site, point, spec) for point in edited)


def _token_gate(
    gate: Gate, direction: Direction, site: Site, edited: SitePoint, spec: ModelSpec
) -> PlannedGate:
    layer = edited.layer if gate.layer is None else gate.layer
    planned = _gate_at(gate, direction, SitePoint(layer, site), spec)
    if planned.point.rank > edited.rank:
        raise InvalidFieldError(
            f"the gate reads {site.value!r} of layer {layer}, which is computed after "
            f"{edited.site.value!r} of layer {edited.layer}, where the intervention acts; read "
            "there or earlier, or decide per request",
            param="layer" if layer > edited.layer else "site",
        )
    return planned


def _gate_at(gate: Gate, direction: Direction, point: SitePoint, spec: ModelSpec) -> PlannedGate:
    spec.require_layer(point.layer, param="layer")
    check_place(direction, point.site, (point.layer,), spec, param="layer")
    tensors = direction.at(point.layer)
    vector = tensors[_READ_TENSOR[direction.kind]]
    if direction.kind is DirectionKind.PLANE:
        vector = vector[0]
    if gate.measure in _OF_PROBES:
        return PlannedGate(gate, direction.reference, point, vector, float(tensors["bias"]))
    return PlannedGate(gate, direction.reference, point, vector / vector.norm(), 0.0)


def _check_gate_kind(gate: Gate, direction: Direction) -> None:
    kinds = [DirectionKind.PROBE] if gate.measure in _OF_PROBES else list(_READ_TENSOR)
    if direction.kind not in kinds:
        raise IncompatibleOperationError(
            f"direction {direction.reference} is of kind {direction.kind.value!r}; a gate that "
            f"measures {gate.measure.value!r} expects "
            f"{' or '.join(repr(kind.value) for kind in kinds)}",
            param="direction",
        )
