"""One use of a direction: what is done with it, where, how much, and on which tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final, Literal, Self

from .direction_ref import DirectionRef
from .errors import InvalidFieldError, SteeringError
from .fields import check_keys, mapping, member, number, require, shown
from .gates import Gate, Per
from .layer_selection import STORED, LayerRange, LayerSelection, parse_layers
from .schedules import CONSTANT, Schedule
from .scopes import EVERYWHERE, Scope
from .sites import Site, parse_site

__all__ = ["Intervention", "Operation", "StrengthUnit"]


class Operation(StrEnum):
    """What is done to an activation; formulas in `steering.operations`."""

    ADD = "add"
    ABLATE = "ablate"
    SET = "set"
    CLAMP = "clamp"
    TRANSPORT = "transport"
    DIAGONAL = "diagonal"
    ROTATE = "rotate"
    ROTATE_TO = "rotate_to"
    SCALE_HEADS = "scale_heads"
    RANK_ONE = "rank_one"


class StrengthUnit(StrEnum):
    """What strength 1 means for `add`.

    `raw`: the vector as stored. `resid`: the normalised vector times the mean residual norm at
    the point it is added.
    """

    RAW = "raw"
    RESID = "resid"


# Fields beyond the common ones, by operation: (required, optional).
_OWN_FIELDS: Final[dict[Operation, tuple[frozenset[str], frozenset[str]]]] = {
    Operation.ADD: (frozenset(), frozenset()),
    Operation.ABLATE: (frozenset(), frozenset({"reference"})),
    Operation.SET: (frozenset({"value"}), frozenset()),
    Operation.CLAMP: (frozenset(), frozenset({"minimum", "maximum"})),
    Operation.TRANSPORT: (frozenset(), frozenset({"mean_strength", "shape_strength"})),
    Operation.DIAGONAL: (frozenset(), frozenset()),
    Operation.ROTATE: (frozenset({"angle"}), frozenset()),
    Operation.ROTATE_TO: (frozenset({"angle"}), frozenset()),
    Operation.SCALE_HEADS: (frozenset(), frozenset()),
    Operation.RANK_ONE: (frozenset(), frozenset()),
}
_NUMBERS: Final = frozenset(
    {"strength", "value", "minimum", "maximum", "angle", "mean_strength", "shape_strength"}
)


@dataclass(frozen=True, slots=True)
class Intervention:
    """An operation with a direction at layers of a site, on the tokens of a scope.

    Attributes:
        operation: What is done.
        direction: With which direction.
        layers: At which layers.
        site: At which site; None means the direction's own.
        strength: Multiplies the operation's effect; unit given by `unit`.
        unit: What strength 1 means; other than `raw` for `add` only.
        scope: On which tokens.
        schedule: Factor on the strength over generated tokens.
        gate: Condition under which it acts; None means always.
        restore_norm: Rescale every steered token to its norm before the edit; None means the
            operation's default (true for `scale_heads`, false otherwise).
        value: Projection on the unit direction to set (`set`), in units of the activation.
        minimum: Lower bound of the projection (`clamp`), in units of the activation.
        maximum: Upper bound of the projection (`clamp`), in units of the activation.
        reference: Projection to leave instead of zero (`ablate`): a number along the unit
            direction, or `"stored"` for the projection of the direction's `reference` tensor.
        angle: Degrees, from the plane's first axis towards its second (`rotate`, `rotate_to`).
        mean_strength: Factor on a transport's shift b.
        shape_strength: Factor on a transport's linear map C.

    Raises:
        SteeringError: Naming the field, what it is and what was expected.
    """

    operation: Operation
    direction: DirectionRef
    layers: LayerSelection = STORED
    site: Site | None = None
    strength: float = 1.0
    unit: StrengthUnit = StrengthUnit.RAW
    scope: Scope = EVERYWHERE
    schedule: Schedule = CONSTANT
    gate: Gate | None = None
    restore_norm: bool | None = None
    value: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    reference: float | Literal["stored"] | None = None
    angle: float | None = None
    mean_strength: float | None = None
    shape_strength: float | None = None

    def __post_init__(self) -> None:
        required, optional = _OWN_FIELDS[self.operation]
        for name in sorted(_all_own_fields()):
            given = getattr(self, name) is not None
            if given and name not in required | optional:
                raise InvalidFieldError(
                    f"{name} is given, which {self.operation.value!r} does not use; remove it",
                    param=name,
                )
            if name in required and not given:
                raise InvalidFieldError(
                    f"{self.operation.value!r} has no {name}; it is required", param=name
                )
        for name in sorted(_NUMBERS):
            if getattr(self, name) is not None:
                number(getattr(self, name), name)
        if self.reference is not None and self.reference != STORED:
            number(self.reference, "reference")
        self._check_clamp()
        self._check_gated_scope()
        if self.unit is not StrengthUnit.RAW and self.operation is not Operation.ADD:
            raise InvalidFieldError(
                f"unit is {self.unit.value!r} for {self.operation.value!r}; only 'add' has "
                "units other than 'raw'",
                param="unit",
            )

    def _check_clamp(self) -> None:
        if self.operation is not Operation.CLAMP:
            return
        if self.minimum is None and self.maximum is None:
            raise InvalidFieldError(
                "'clamp' has neither minimum nor maximum; give at least one", param="minimum"
            )
        if None not in (self.minimum, self.maximum) and self.minimum > self.maximum:  # type: ignore[operator]
            raise InvalidFieldError(
                f"minimum is {self.minimum:g}, above maximum {self.maximum:g}", param="minimum"
            )

    def _check_gated_scope(self) -> None:
        if (
            self.gate is None
            or self.gate.per is not Per.REQUEST
            or self.scope.begins_at_last_prompt
        ):
            return
        raise InvalidFieldError(
            f"scope is {self.scope.to_dict()}, but a gate per request is decided on the last "
            "prompt token and cannot change those before it; expected a scope within "
            '{"tokens": ["last_prompt", "generated"]}',
            param="scope",
        )

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read the JSON object that profiles and requests carry.

        Raises:
            SteeringError: With `param` naming the field.
        """
        check_keys(document, _FIELDS, noun="an intervention")
        values: dict[str, Any] = {
            "operation": member(
                Operation, require(document, "operation", noun="intervention"), "operation"
            ),
            "direction": DirectionRef.parse(require(document, "direction", noun="intervention")),
            "layers": parse_layers(document.get("layers")),
        }
        if document.get("site") is not None:
            values["site"] = parse_site(document["site"])
        if document.get("unit") is not None:
            values["unit"] = member(StrengthUnit, document["unit"], "unit")
        for name in _NUMBERS & set(document):
            if document[name] is not None:
                values[name] = number(document[name], name)
        if document.get("reference") is not None:
            reference = document["reference"]
            values["reference"] = STORED if reference == STORED else number(reference, "reference")
        if document.get("restore_norm") is not None:
            values["restore_norm"] = _flag(document["restore_norm"], "restore_norm")
        for name, reader in (("scope", Scope), ("schedule", Schedule), ("gate", Gate)):
            if document.get(name) is not None:
                values[name] = _nested(reader, document[name], name)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The document `from_dict` reads, without fields left at their default."""
        document: dict[str, Any] = {
            "operation": self.operation.value,
            "direction": str(self.direction),
            "layers": _layers_document(self.layers),
        }
        if self.site is not None:
            document["site"] = self.site.value
        document["strength"] = self.strength
        document["unit"] = self.unit.value
        document["scope"] = self.scope.to_dict()
        if self.schedule != CONSTANT:
            document["schedule"] = self.schedule.to_dict()
        if self.gate is not None:
            document["gate"] = self.gate.to_dict()
        for name in ("restore_norm", *sorted(_all_own_fields())):
            if getattr(self, name) is not None:
                document[name] = getattr(self, name)
        return document


def _all_own_fields() -> frozenset[str]:
    return frozenset().union(*(required | optional for required, optional in _OWN_FIELDS.values()))


_FIELDS: Final = frozenset(field.name for field in fields(Intervention))


def _flag(value: Any, param: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidFieldError(f"{param} is {shown(value)}; expected true or false", param=param)
    return value


def _nested(reader: Any, document: Any, name: str) -> Any:
    found = mapping(document, name)
    try:
        return reader.from_dict(found)
    except SteeringError as error:
        raise error.under(name) from None


def _layers_document(layers: LayerSelection) -> Any:
    if isinstance(layers, LayerRange):
        return {"from": layers.start, "to": layers.stop}
    return layers if isinstance(layers, str) else list(layers)
