"""A request's choice of steering, before anything is looked up."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from steering.documents import DirectionRef, Intervention, Monitor

NONE: Final = "none"
"""The profile that opts out beneath any default."""


class Compose(StrEnum):
    """The effect of a request's own steering on the default profile.

    `replace`: a profile or interventions in the request stand instead of the default.
    `add`: they act after it.
    """

    REPLACE = "replace"
    ADD = "add"


@dataclass(frozen=True, slots=True)
class NamedProfile:
    """One explicit choice of a profile: by the body, the model's name or the header.

    Attributes:
        text: The choice: `name`, `name@version` or `none`.
        param: The place where it was given, for errors.
    """

    text: str
    param: str

    def reference(self) -> DirectionRef:
        """Name and version.

        Raises:
            InvalidFieldError: Not of that form.
        """
        return DirectionRef.parse(self.text, param=self.param)


@dataclass(frozen=True, slots=True)
class SteeringChoice:
    """The steering of one request.

    Attributes:
        named: Explicit choices of a profile, first the body's; they must agree.
        strength: Factor on the profile's strengths; None means 1.
        ignores_max_strength: Whether the strength may leave what the profile offers.
        interventions: After the profile's.
        monitors: Beside the profile's.
        compose: The effect on the default profile.
        is_compared: Whether unsteered answers are wanted as well.
        prompt_tokens: Position where `prompt` ends, one or one per prompt; empty: at its end.
        seeks_boundary: Whether that position is looked for in the tokens of the prompt instead.
    """

    named: tuple[NamedProfile, ...] = ()
    strength: float | None = None
    ignores_max_strength: bool = False
    interventions: tuple[Intervention, ...] = ()
    monitors: tuple[Monitor, ...] = ()
    compose: Compose = Compose.REPLACE
    is_compared: bool = False
    prompt_tokens: tuple[int, ...] = ()
    seeks_boundary: bool = False

    @property
    def moves_boundary(self) -> bool:
        """Whether the request itself decides where its prompt ends."""
        return self.seeks_boundary or bool(self.prompt_tokens)
