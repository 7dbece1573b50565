"""An ordered set of interventions and monitors under one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from .direction_ref import DirectionRef
from .errors import InvalidFieldError, SteeringError
from .fields import check_keys, integer, mapping, number, require, shown, str_list
from .interventions import Intervention
from .sites import Site, parse_site

__all__ = ["DEFAULT_MAX_STRENGTH", "Monitor", "Profile"]

DEFAULT_MAX_STRENGTH: Final = 1.5
"""Largest `strength` a request may give with a profile, unless the profile says otherwise."""


@dataclass(frozen=True, slots=True)
class Monitor:
    """A direction read out per token while serving: h . v / |v| (vector) or h . w + bias (probe).

    It reads the activation before the edits at its point, at the last prompt token and at every
    generated one.

    Attributes:
        direction: What is read; of kind `vector` or `probe`.
        layer: Where; None means the direction's first stored layer.
        site: Where; None means the direction's own site.
    """

    direction: DirectionRef
    layer: int | None = None
    site: Site | None = None

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read `{"direction": "refusal@1", "layer": 2, "site": "resid_post"}`.

        Raises:
            SteeringError: With `param` naming the field.
        """
        check_keys(document, {"direction", "layer", "site"}, noun="a monitor")
        layer = document.get("layer")
        site = document.get("site")
        return cls(
            DirectionRef.parse(require(document, "direction", noun="monitor")),
            None if layer is None else integer(layer, "layer"),
            None if site is None else parse_site(site),
        )

    def to_dict(self) -> dict[str, Any]:
        """The document `from_dict` reads."""
        document: dict[str, Any] = {"direction": str(self.direction)}
        if self.layer is not None:
            document["layer"] = self.layer
        if self.site is not None:
            document["site"] = self.site.value
        return document


@dataclass(frozen=True, slots=True)
class Profile:
    """Interventions that act one after the other as listed, and monitors beside them.

    Attributes:
        name: Registry name.
        interventions: In order of application.
        monitors: Read-outs returned with every answer.
        description: For people.
        requires: Scopes a key must hold to use it.
        max_strength: Upper bound of a request's `strength`.
        version: Registry version, or None for one that is not stored.
    """

    name: str
    interventions: tuple[Intervention, ...] = ()
    monitors: tuple[Monitor, ...] = ()
    description: str = ""
    requires: tuple[str, ...] = ()
    max_strength: float = DEFAULT_MAX_STRENGTH
    version: int | None = None

    @classmethod
    def from_dict(cls, name: str, document: Mapping[str, Any]) -> Self:
        """Read `{"interventions": [...], "monitors": [...], "requires": [...], ...}`.

        Raises:
            SteeringError: The first problem, with `param` like `interventions[0].layers`.
        """
        check_keys(document, _FIELDS, noun="a profile")
        given = document.get("max_strength")
        max_strength = DEFAULT_MAX_STRENGTH if given is None else number(given, "max_strength")
        if max_strength <= 0:
            raise InvalidFieldError(
                f"max_strength is {max_strength:g}; expected a positive number",
                param="max_strength",
            )
        description = document.get("description")
        if description is not None and not isinstance(description, str):
            raise InvalidFieldError(
                f"description is {shown(description)}; expected a string", param="description"
            )
        return cls(
            name=name,
            interventions=tuple(_read_list(document, "interventions", Intervention)),
            monitors=tuple(_read_list(document, "monitors", Monitor)),
            description=description or "",
            requires=str_list(document.get("requires"), "requires"),
            max_strength=max_strength,
        )

    def to_dict(self) -> dict[str, Any]:
        """The document `from_dict` reads; the name and the version are not part of it."""
        return {
            "description": self.description,
            "interventions": [item.to_dict() for item in self.interventions],
            "monitors": [item.to_dict() for item in self.monitors],
            "requires": list(self.requires),
            "max_strength": self.max_strength,
        }


_FIELDS: Final = frozenset({"description", "interventions", "monitors", "requires", "max_strength"})


def _read_list(document: Mapping[str, Any], key: str, reader: Any) -> list[Any]:
    items = document.get(key)
    if items is None:
        return []
    if not isinstance(items, list | tuple):
        raise InvalidFieldError(f"{key} is {shown(items)}; expected a list of objects", param=key)
    values = []
    for index, item in enumerate(items):
        entry = mapping(item, f"{key}[{index}]")
        try:
            values.append(reader.from_dict(entry))
        except SteeringError as error:
            raise error.under(f"{key}[{index}]") from None
    return values
