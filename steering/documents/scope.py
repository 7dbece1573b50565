"""Which tokens an intervention acts on, decided by absolute position alone."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from enum import IntFlag, StrEnum
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BeforeValidator,
    Field,
    WithJsonSchema,
    WrapValidator,
    field_serializer,
    field_validator,
)
from pydantic_core.core_schema import ValidatorFunctionWrapHandler

from steering.errors import InvalidFieldError, short_repr

from .document import Document, refused
from .fields import Integer, ListOf, listed

MAX_ITEMS: Final = 64
"""Most windows or indices in one field of a scope; each costs time at every step."""

_Mask = NDArray[np.bool_]


class Tokens(StrEnum):
    """A phase of a request."""

    ALL = "all"
    PROMPT = "prompt"
    GENERATED = "generated"
    LAST_PROMPT = "last_prompt"


class Region(IntFlag):
    """What a token is part of; a token may be in several. Values are bits of a region code."""

    NONE = 0
    ASSISTANT = 1  # an assistant turn: earlier ones in the prompt, and everything generated
    THINKING = 2  # from the thinking marker to its closing marker, both included
    ANSWER = 4  # an assistant turn's tokens outside thinking


class RegionName(StrEnum):
    """A region as documents name it."""

    ASSISTANT = "assistant"
    THINKING = "thinking"
    ANSWER = "answer"

    @property
    def region(self) -> Region:
        """The region's bit in the labels of tokens."""
        return Region[self.name]


@dataclass(frozen=True, slots=True)
class PositionContext:
    """What absolute positions of one request mean.

    Attributes:
        num_prompt_tokens: Positions below it are prompt; the boundary never moves, also not when
            a preempted request computes its generated tokens again.
        regions: Region bits per position, at least as long as the positions asked about, or None
            when no intervention of the request uses regions.
        open_gates: Keys of the request's gates that are open; those not yet decided are not.
    """

    num_prompt_tokens: int
    regions: bytearray | None = None
    open_gates: Set[bytes] = frozenset()


def _items(value: Any) -> Any:
    """A single item as a list of it; a list of a number of items that is allowed."""
    if isinstance(value, list | tuple) and not 0 < len(value) <= MAX_ITEMS:
        raise refused(f"has {len(value)} items; expected 1 to {MAX_ITEMS}, or leave it out")
    return value


def _is_empty(value: tuple[Any, ...] | Selector) -> bool:
    return value.is_empty if isinstance(value, Selector) else not value


def _window(value: Any, handler: ValidatorFunctionWrapHandler) -> tuple[int, int]:
    pair: tuple[int, ...] = handler(() if value is None else listed(value))
    if len(pair) != 2 or not 0 <= pair[0] < pair[1]:
        raise refused(
            f"contains {short_repr(value)}; expected [start, stop] with 0 <= start < stop"
        )
    return pair[0], pair[1]


def _region_name(value: Any) -> Any:
    if isinstance(value, str) and value not in list(RegionName):
        raise refused(f"contains {short_repr(value)}; expected 'assistant', 'thinking' or 'answer'")
    return value


def _phase(value: Any) -> Any:
    if isinstance(value, str) and value not in list(Tokens):
        raise refused(f"is {short_repr(value)}; expected one of {', '.join(Tokens)}")
    return value


def _one_or_list(item: dict[str, Any]) -> WithJsonSchema:
    several = {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_ITEMS}
    return WithJsonSchema({"anyOf": [item, several]})


_Window = Annotated[
    tuple[Integer, ...],
    WrapValidator(_window),
    WithJsonSchema(
        {
            "type": "array",
            "prefixItems": [{"type": "integer", "minimum": 0}, {"type": "integer", "minimum": 1}],
            "minItems": 2,
            "maxItems": 2,
        }
    ),
]
_Windows = Annotated[
    tuple[_Window, ...],
    BeforeValidator(_items),
    ListOf("[start, stop] pairs"),
    Field(json_schema_extra={"minItems": 1, "maxItems": MAX_ITEMS}),
]


class Selector(Document):
    """A union of ways to name tokens."""

    noun: ClassVar[str] = "scope"
    prefix: ClassVar[str] = "exclude."
    form: ClassVar[str] = "an object like scope's own"

    tokens: Annotated[
        tuple[Annotated[Tokens, BeforeValidator(_phase)], ...],
        BeforeValidator(listed),
        BeforeValidator(_items),
        _one_or_list({"type": "string", "enum": [phase.value for phase in Tokens]}),
    ] = Field(
        default_factory=tuple,
        exclude_if=_is_empty,
        description="Phases of the request, one or several.",
    )
    windows: _Windows = Field(
        default_factory=tuple,
        exclude_if=_is_empty,
        description="Half-open windows [start, stop) of absolute positions, 0 <= start < stop.",
    )
    generated_windows: _Windows = Field(
        default_factory=tuple,
        exclude_if=_is_empty,
        description="Half-open windows [start, stop) of generated tokens, the first being 0.",
    )
    prompt_indices: Annotated[
        tuple[Integer, ...],
        BeforeValidator(listed),
        BeforeValidator(_items),
        _one_or_list({"type": "integer"}),
    ] = Field(
        default_factory=tuple,
        exclude_if=_is_empty,
        description="Positions in the prompt; negative ones count from its end.",
    )
    regions: Annotated[
        tuple[Annotated[RegionName, BeforeValidator(_region_name)], ...],
        BeforeValidator(listed),
        BeforeValidator(_items),
        _one_or_list({"type": "string", "enum": [region.value for region in RegionName]}),
    ] = Field(
        default_factory=tuple,
        exclude_if=_is_empty,
        description="Parts of a chat; a token in any of them is named.",
    )

    @field_validator("regions", mode="after")
    @classmethod
    def _in_order(cls, names: tuple[RegionName, ...]) -> tuple[RegionName, ...]:
        return tuple(name for name in RegionName if name in names)

    @field_serializer("tokens")
    def _one_or_several(self, tokens: tuple[Tokens, ...]) -> Tokens | tuple[Tokens, ...]:
        return tokens[0] if len(tokens) == 1 else tokens

    @cached_property
    def region_bits(self) -> Region:
        """The scope's regions as bits of a region code."""
        bits = Region.NONE
        for name in self.regions:
            bits |= name.region
        return bits

    @cached_property
    def is_empty(self) -> bool:
        """Whether it names nothing at all, whatever the request."""
        fields = (self.windows, self.generated_windows, self.prompt_indices, self.regions)
        return not self.tokens and not any(fields)

    def selected(self, start: int, stop: int, context: PositionContext) -> _Mask:
        """Which positions of [start, stop) it names: [stop - start] booleans.

        Raises:
            InvalidFieldError: It names regions and the context has none.
        """
        positions = np.arange(start, stop)
        boundary = context.num_prompt_tokens
        mask = np.zeros(stop - start, dtype=np.bool_)
        for phase in self.tokens:
            mask |= _phase_mask(phase, positions, boundary)
        for lo, hi in self.windows:
            mask |= (positions >= lo) & (positions < hi)
        for lo, hi in self.generated_windows:
            mask |= (positions >= boundary + lo) & (positions < boundary + hi)
        for index in self.prompt_indices:
            absolute = index if index >= 0 else boundary + index
            if 0 <= absolute < boundary:
                mask |= positions == absolute
        if self.regions:
            mask |= self._region_mask(start, stop, context)
        return mask

    def _region_mask(self, start: int, stop: int, context: PositionContext) -> _Mask:
        if context.regions is None or len(context.regions) < stop:
            raise InvalidFieldError(
                "scope names regions, but this request has none; send chat messages with a "
                "template that marks turns, or use tokens and windows",
                param="scope.regions",
            )
        codes = np.frombuffer(bytes(context.regions[start:stop]), dtype=np.uint8)
        selected: _Mask = (codes & int(self.region_bits)) != 0
        return selected


class Scope(Selector):
    """Tokens named by its own members and not by `exclude`; excludes win.

    Without members of its own it names every token. A token's own position decides: the last
    prompt token is `prompt` and `last_prompt`, although it predicts the first generated token.
    """

    prefix: ClassVar[str] = ""
    form: ClassVar[str] = 'an object such as {"tokens": "last_prompt"}'

    exclude: Selector = Field(
        default_factory=Selector,
        exclude_if=_is_empty,
        description="Tokens on which nothing is done.",
    )

    @classmethod
    def prepare(cls, document: dict[str, Any]) -> dict[str, Any]:
        """A document that names no token of its own means all of them."""
        return document if set(document) - {"exclude"} else {"tokens": Tokens.ALL, **document}

    def mask(self, start: int, stop: int, context: PositionContext) -> _Mask:
        """Which absolute positions of [start, stop) are in scope: [stop - start] booleans."""
        mask = self.selected(start, stop, context)
        if not self.exclude.is_empty:
            mask &= ~self.exclude.selected(start, stop, context)
        return mask

    @property
    def uses_regions(self) -> bool:
        """Whether it can only be resolved for a request with regions."""
        return bool(self.regions or self.exclude.regions)

    @property
    def names_phases_alone(self) -> bool:
        """Whether it names whole phases of the request and nothing else, and excludes nothing."""
        fields = (self.windows, self.generated_windows, self.prompt_indices, self.regions)
        return not any(fields) and self.exclude.is_empty

    @property
    def begins_at_last_prompt(self) -> bool:
        """Whether it names no prompt token but the last, whatever the request."""
        if {Tokens.ALL, Tokens.PROMPT} & set(self.exclude.tokens):
            return True
        return (
            set(self.tokens) <= {Tokens.LAST_PROMPT, Tokens.GENERATED}
            and set(self.prompt_indices) <= {-1}
            and not self.windows
            and not self.regions
        )


EVERYWHERE: Final = Scope()


def _phase_mask(phase: Tokens, positions: NDArray[np.int_], boundary: int) -> _Mask:
    mask: _Mask
    match phase:
        case Tokens.ALL:
            mask = np.ones(len(positions), dtype=np.bool_)
        case Tokens.PROMPT:
            mask = positions < boundary
        case Tokens.GENERATED:
            mask = positions >= boundary
        case Tokens.LAST_PROMPT:
            mask = positions == boundary - 1
    return mask
