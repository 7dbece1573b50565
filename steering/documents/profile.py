"""An ordered set of interventions and monitors under one name."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

from pydantic import BeforeValidator, Field

from steering.errors import short_repr

from .document import Document, refused
from .fields import Integer, ListOf, Number, SiteName, Texts, Within
from .intervention import AnyIntervention
from .reference import DirectionName

DEFAULT_MAX_STRENGTH: Final = 1.5
"""Largest `strength` a request may give with a profile, unless the profile says otherwise."""


class Monitor(Document):
    """A direction read out per token while serving: h . v / |v| (vector) or h . w + bias (probe).

    It reads the activation before the edits at its point, at the last prompt token and at every
    generated one.
    """

    noun: ClassVar[str] = "a monitor"
    subject: ClassVar[str] = "monitor"

    direction: DirectionName = Field(description="What is read; of kind `vector` or `probe`.")
    layer: Integer | None = Field(
        default=None, description="Layer (0-based); by default the direction's first stored one."
    )
    site: SiteName | None = Field(default=None, description="Site; by default the direction's own.")


def _description(value: Any) -> Any:
    if not isinstance(value, str):
        raise refused(f"is {short_repr(value)}; expected a string")
    return value


class ProfileDocument(Document):
    """Interventions that act one after the other as listed, and monitors beside them."""

    noun: ClassVar[str] = "a profile"

    description: Annotated[str, BeforeValidator(_description)] = Field(
        default="", description="For people."
    )
    interventions: Annotated[tuple[AnyIntervention, ...], ListOf("objects")] = Field(
        default=(), description="In order of application."
    )
    monitors: Annotated[tuple[Monitor, ...], ListOf("objects")] = Field(
        default=(), description="Read-outs returned with every answer."
    )
    requires: Texts = Field(default=(), description="Permissions that a key must hold to use it.")
    max_strength: Annotated[Number, Field(gt=0), Within("a positive number")] = Field(
        default=DEFAULT_MAX_STRENGTH, description="Upper bound of a request's `strength`."
    )

    def named(self, name: str, version: int | None = None) -> Profile:
        """The profile of this document under a registry name."""
        return Profile(name=name, version=version, **dict(self))


class Profile(ProfileDocument):
    """A profile document under its registry name.

    Attributes:
        name: Registry name; not part of the document.
        version: Registry version, or None for one that is not stored; not part of the document.
    """

    name: str = Field(exclude=True)
    version: int | None = Field(default=None, exclude=True)
