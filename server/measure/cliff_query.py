"""What is asked about the cliffs of a set of rollouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from steering.analysis import NUM_POINTS, PLATEAU_TRIM, Padding
from steering.errors import InvalidFieldError, SteeringError
from steering.fields import check_keys, integer, member, number, require
from steering.profiles import Monitor

from .examples.example import Example
from .rollout import Rollout, read_rollout

__all__ = ["CliffQuery", "read_examples", "read_probe"]

_FIELDS: Final = frozenset(
    {"conversations", "probe", "thinking_portion", "trim", "points", "padding", "curves"}
)
_MAX_POINTS: Final = 1000


@dataclass(frozen=True, slots=True)
class CliffQuery:
    """A checked request for cliffs.

    Attributes:
        conversations: Rollouts, each ending with the assistant's thought (and answer).
        probe: What is read, and where.
        thinking_portion: Share of each thought that is kept, from its start.
        trim: Tokens at a thought's end that do not count towards its plateau.
        points: Of the average curve.
        padding: Before curves shorter than the longest.
        curves: Whether the curve of each rollout is returned.
    """

    conversations: tuple[Example, ...]
    probe: Monitor
    thinking_portion: float = 1.0
    trim: int = PLATEAU_TRIM
    points: int = NUM_POINTS
    padding: Padding = Padding.NONE
    curves: bool = True

    @classmethod
    def from_document(cls, document: Mapping[str, Any], *, most: int, curves: bool = True) -> Self:
        """Read `{"conversations": [[...messages]], "probe": "refusal-probe@1", ...}`.

        Args:
            document: The request.
            most: Largest number of conversations.
            curves: Default of that field.

        Raises:
            SteeringError: With `param` naming the field.
        """
        check_keys(document, _FIELDS, noun="a cliff request")
        points = integer(document.get("points", NUM_POINTS), "points")
        trim = integer(document.get("trim", PLATEAU_TRIM), "trim")
        if not 2 <= points <= _MAX_POINTS or trim < 0:
            param = "trim" if trim < 0 else "points"
            raise InvalidFieldError(
                f"points is {points}, trim {trim}; expected 2 to {_MAX_POINTS}, and 0 or more",
                param=param,
            )
        wants_curves = document.get("curves", curves)
        if not isinstance(wants_curves, bool):
            raise InvalidFieldError("curves is not true or false", param="curves")
        return cls(
            conversations=read_examples(document, "conversations", most=most),
            probe=read_probe(document),
            thinking_portion=number(document.get("thinking_portion", 1.0), "thinking_portion"),
            trim=trim,
            points=points,
            padding=member(Padding, document.get("padding", Padding.NONE), "padding"),
            curves=wants_curves,
        )

    def rollouts(self, tokenizer: Any, max_tokens: int) -> list[Rollout]:
        """The conversations in tokens.

        Raises:
            InvalidFieldError, EngineError: As `read_rollout`.
        """
        return [
            read_rollout(tokenizer, example, max_tokens, portion=self.thinking_portion)
            for example in self.conversations
        ]


def read_examples(document: Mapping[str, Any], key: str, *, most: int) -> tuple[Example, ...]:
    """A list of chats or texts.

    Raises:
        InvalidFieldError: Not one, too many, or one that is malformed.
    """
    items = require(document, key, noun="the request")
    if not isinstance(items, list) or not 0 < len(items) <= most:
        size = f"has {len(items):,} entries" if isinstance(items, list) else "is not a list"
        raise InvalidFieldError(
            f"{key} {size}; expected 1 to {most:,}; larger sets go through a job", param=key
        )
    return tuple(Example.parse(item, f"{key}[{index}]") for index, item in enumerate(items))


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
