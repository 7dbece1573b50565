"""One use of a direction: what is done with it, where, how much, and on which tokens."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, TypeAdapter, model_validator

from steering.errors import InvalidFieldError, SteeringError

from .document import Document, Variants, members_of_variants, read, tagged
from .fields import Flag, Number, SiteName
from .gate import AnyGate, Per
from .layers import STORED, LayerSelection
from .reference import DirectionName
from .schedule import CONSTANT, AnySchedule, ConstantSchedule
from .scope import EVERYWHERE, Scope


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


class Intervention(Document):
    """An operation with a direction at layers of a site, on the tokens of a scope.

    Each operation is a class of its own below, with the members that only it has.
    """

    model_config = tagged("operation")

    noun: ClassVar[str] = "an intervention"
    subject: ClassVar[str] = "intervention"

    operation: Operation = Field(description="What is done to the activation.")
    direction: DirectionName = Field(description="With which direction.")
    layers: LayerSelection = Field(default=STORED, description="At which layers (0-based).")
    site: SiteName | None = Field(
        default=None, description="At which site; by default the direction's own."
    )
    strength: Number = Field(
        default=1.0,
        description="Multiplies the operation's effect; what 1 means for `add` is given by `unit`.",
    )
    unit: StrengthUnit = Field(
        default=StrengthUnit.RAW,
        description="What strength 1 means: the vector as stored, or, for `add` only, the unit "
        "vector times the mean residual norm where it is added.",
    )
    scope: Scope = Field(default=EVERYWHERE, description="On which tokens; by default on all.")
    schedule: AnySchedule = Field(
        default=CONSTANT,
        exclude_if=lambda schedule: isinstance(schedule, ConstantSchedule),
        description="Factor on the strength over generated tokens.",
    )
    gate: AnyGate | None = Field(
        default=None, description="Condition under which it acts; by default always."
    )
    restore_norm: Flag | None = Field(
        default=None,
        description="Whether every steered token is rescaled to its norm before the edit; by "
        "default for `scale_heads` alone.",
    )

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read the JSON object that profiles and requests carry.

        Raises:
            SteeringError: With `param` naming the member.
        """
        found = read(_ANY, document)
        assert isinstance(found, cls), "an intervention read as one of another operation"
        return found

    @classmethod
    def known(cls) -> frozenset[str]:
        """Members of interventions of every operation."""
        return members_of_variants(Intervention)

    @classmethod
    def owner(cls, name: str) -> str:
        """The operation, for a member that not every operation has."""
        return cls.subject if name in Intervention.model_fields else repr(cls._name())

    @classmethod
    def misplaced(cls, name: str) -> SteeringError:
        """The refusal of a member that only other operations have."""
        return InvalidFieldError(
            f"{name} is given, which {cls._name()!r} does not use; remove it", param=name
        )

    @classmethod
    def _name(cls) -> str:
        operation: Operation = cls.model_fields["operation"].default
        return operation.value

    @model_validator(mode="after")
    def _can_be_gated(self) -> Self:
        gate = self.gate
        if gate is None or gate.per is not Per.REQUEST or self.scope.begins_at_last_prompt:
            return self
        raise InvalidFieldError(
            f"scope is {self.scope.to_dict()}, but a gate per request is decided on the last "
            "prompt token and cannot change those before it; expected a scope within "
            '{"tokens": ["last_prompt", "generated"]}',
            param="scope",
        )

    @model_validator(mode="after")
    def _has_that_unit(self) -> Self:
        if self.unit is not StrengthUnit.RAW and self.operation is not Operation.ADD:
            raise InvalidFieldError(
                f"unit is {self.unit.value!r} for {self.operation.value!r}; only 'add' has "
                "units other than 'raw'",
                param="unit",
            )
        return self


class Add(Intervention):
    """h' = h + g v: the direction added, times the strength."""

    operation: Literal[Operation.ADD] = Operation.ADD
    distribute: Flag = Field(
        default=False,
        exclude_if=lambda distribute: not distribute,
        description="Whether the layers share the strength: at each of n it is 1 / n. Without it "
        "the pushes of all layers add up.",
    )


def _reference_form(value: Any) -> str:
    return "stored" if value == STORED else "number"


class Ablate(Intervention):
    """h' = h - g ((h - ref) Q^T) Q: what lies along the direction removed."""

    operation: Literal[Operation.ABLATE] = Operation.ABLATE
    reference: (
        Annotated[
            Annotated[Literal["stored"], Tag("stored")] | Annotated[Number, Tag("number")],
            Discriminator(_reference_form),
        ]
        | None
    ) = Field(
        default=None,
        description="Projection to leave instead of zero: a number along the unit direction, or "
        '"stored" for that of the direction\'s tensor `reference`.',
    )


class SetProjection(Intervention):
    """h' = h + g (value - h u) u: the projection on the unit direction fixed."""

    operation: Literal[Operation.SET] = Operation.SET
    value: Number = Field(description="Projection to set, in units of the activation.")


class Clamp(Intervention):
    """h' = h + g (clip(h u, minimum, maximum) - h u) u; at least one bound is given."""

    operation: Literal[Operation.CLAMP] = Operation.CLAMP
    maximum: Number | None = Field(
        default=None, description="Upper bound of the projection, in units of the activation."
    )
    minimum: Number | None = Field(
        default=None, description="Lower bound of the projection, in units of the activation."
    )

    @model_validator(mode="after")
    def _is_an_interval(self) -> Self:
        if self.minimum is None and self.maximum is None:
            raise InvalidFieldError(
                "'clamp' has neither minimum nor maximum; give at least one", param="minimum"
            )
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise InvalidFieldError(
                f"minimum is {self.minimum:g}, above maximum {self.maximum:g}", param="minimum"
            )
        return self


class Transport(Intervention):
    """h' = h + g [ s_shape (h V^T - m) C + s_mean b ]: a fitted affine map."""

    operation: Literal[Operation.TRANSPORT] = Operation.TRANSPORT
    mean_strength: Number | None = Field(
        default=None, description="Factor on the map's shift b; 1 by default."
    )
    shape_strength: Number | None = Field(
        default=None, description="Factor on the map's linear part C; 1 by default."
    )


class Diagonal(Intervention):
    """h' = h + g [ (scale - 1) * h + shift ]: one affine map per coordinate."""

    operation: Literal[Operation.DIAGONAL] = Operation.DIAGONAL


class Rotate(Intervention):
    """h' = h + g (h B^T)(R^T - I) B: a turn in the direction's plane."""

    operation: Literal[Operation.ROTATE] = Operation.ROTATE
    angle: Number = Field(description="Degrees, from the plane's first axis towards its second.")


class RotateTo(Intervention):
    """h' = h + g (|z| (cos, sin) - z) B, z = h B^T: the component in the plane turned."""

    operation: Literal[Operation.ROTATE_TO] = Operation.ROTATE_TO
    angle: Number = Field(description="Degrees, from the plane's first axis towards its second.")


class ScaleHeads(Intervention):
    """z_i' = z_i + g (scale_i - 1) z_i for attention head i."""

    operation: Literal[Operation.SCALE_HEADS] = Operation.SCALE_HEADS


class RankOne(Intervention):
    """y' = y + g (mean(y) - mean(c)) s: rank-one safety injection at a write matrix."""

    operation: Literal[Operation.RANK_ONE] = Operation.RANK_ONE


AnyIntervention = Annotated[Intervention, Variants("operation", Operation)]
"""An intervention of any operation."""

_ANY: Final[TypeAdapter[Intervention]] = TypeAdapter(AnyIntervention)
