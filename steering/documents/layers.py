"""Which layers an intervention acts at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

from steering.errors import InvalidFieldError, LayerOutOfRangeError, short_repr

from .document import Document, refused
from .fields import Integer, Number, listed

STORED: Final = "stored"


class LayerRange(Document):
    """Layers l with start <= (l + 1) / L <= stop: a closed range of relative depth in [0, 1]."""

    noun: ClassVar[str] = "a layer range"
    prefix: ClassVar[str] = "layers."

    start: Number = Field(
        alias="from",
        description="Least relative depth (l + 1) / L of a layer l of L.",
        json_schema_extra={"minimum": 0, "maximum": 1},
    )
    stop: Number = Field(
        alias="to",
        description="Greatest relative depth.",
        json_schema_extra={"minimum": 0, "maximum": 1},
    )

    @classmethod
    def between(cls, start: float, stop: float) -> Self:
        """The range from one relative depth to another."""
        return cls.model_validate({"from": start, "to": stop})

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not 0.0 <= self.start <= self.stop <= 1.0:
            raise InvalidFieldError(
                f"layers is from {self.start:g} to {self.stop:g}; expected 0 <= from <= to <= 1"
            )
        return self


def _form(value: Any) -> str:
    if isinstance(value, str):
        return "stored"
    return "range" if isinstance(value, Mapping | LayerRange) else "list"


def _stored(value: Any) -> Any:
    if value != STORED:
        raise refused(
            f"is {short_repr(value)}; expected a list of layers, "
            '{"from": 0.4, "to": 0.6} or "stored"'
        )
    return value


def _distinct(layers: tuple[int, ...]) -> tuple[int, ...]:
    if not layers:
        raise refused("is empty; expected at least one layer", LayerOutOfRangeError.code)
    if len(set(layers)) != len(layers):
        raise refused(f"is {short_repr(list(layers))}; expected each layer once")
    return layers


LayerSelection = Annotated[
    Annotated[Literal["stored"], BeforeValidator(_stored), Tag("stored")]
    | Annotated[LayerRange, Tag("range")]
    | Annotated[
        tuple[Integer, ...],
        BeforeValidator(listed),
        AfterValidator(_distinct),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "integer"},
                    {
                        "type": "array",
                        "items": {"type": "integer"},
                        "minItems": 1,
                        "uniqueItems": True,
                    },
                ]
            }
        ),
        Tag("list"),
    ],
    Discriminator(_form),
]
"""Layers (0-based), one or a list; a range of relative depth; or those the direction holds."""


class _Layers(Document):
    layers: LayerSelection = STORED


def parse_layers(value: Any) -> LayerSelection:
    """Read `[0, 3]`, `3`, `{"from": 0.4, "to": 0.6}` or `"stored"`; nothing means `"stored"`.

    Raises:
        InvalidFieldError: Anything else.
        LayerOutOfRangeError: An empty list.
    """
    return _Layers.from_dict({"layers": value}).layers


def resolve_layers(
    selection: LayerSelection, stored: tuple[int, ...], num_layers: int
) -> tuple[int, ...]:
    """The layers meant, ascending.

    Raises:
        LayerOutOfRangeError: A layer the model does not have, or a range that holds none.
    """
    if isinstance(selection, LayerRange):
        layers = tuple(
            layer
            for layer in range(num_layers)
            # 1e-9: 0.6 of 5 layers must hold layer 2 although 3 / 5 > 0.6 in floating point
            if selection.start - 1e-9 <= (layer + 1) / num_layers <= selection.stop + 1e-9
        )
        if not layers:
            raise LayerOutOfRangeError(
                f"layers from {selection.start:g} to {selection.stop:g} holds none of the "
                f"{num_layers} layers; a layer l counts as (l + 1) / {num_layers}",
                param="layers",
            )
        return layers
    layers = stored if selection == STORED else tuple(sorted(selection))
    for layer in layers:
        if not 0 <= layer < num_layers:
            raise LayerOutOfRangeError(
                f"layers contains {layer}; the model has layers 0 to {num_layers - 1}",
                param="layers",
            )
    return layers
