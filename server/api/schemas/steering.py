"""The `steering` object of a generation request."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from .fields import Count, Wire

__all__ = ["SteeringFields"]


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


_Boundaries = Annotated[list[Count], Field(max_length=256), BeforeValidator(_one_or_many)]
_Documents = Annotated[list[dict[str, Any]], Field(max_length=64)]


class SteeringFields(Wire):
    """How an answer is to be steered.

    Interventions and monitors are the objects that profiles hold; `steering.interventions` reads
    them, so that there is one definition of each. `prompt_tokens` is one number, or one for each
    prompt.
    """

    profile: Annotated[str, Field(max_length=160)] | None = None
    strength: float | None = None
    interventions: _Documents = Field(default_factory=list)
    monitors: _Documents = Field(default_factory=list)
    compose: Literal["replace", "add"] = "replace"
    compare: bool = False
    prompt_tokens: _Boundaries = Field(default_factory=list)
