"""Profiles and the aliases that point to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import httpx

from coxswain_client.call import Call, below
from coxswain_client.endpoint import Endpoint, Resource
from coxswain_client.models.page import Page
from coxswain_client.models.registry import Alias, Archived, PlanReport, Profile
from coxswain_client.models.steering import Intervention
from coxswain_client.sender import AsyncSender, Sender

__all__ = ["Aliases", "Profiles"]

_S = TypeVar("_S", bound=Sender | AsyncSender)
_PATH = "/v1/steering/profiles"
_ALIASES = "/v1/steering/aliases"


def _create(
    name: str, interventions: Sequence[Intervention], *, publish: bool = False, **fields: Any
) -> Call[Profile]:
    """Save a version of a profile.

    Args:
        name: Registry name.
        interventions: In order of application.
        publish: Whether requests may use it at once.
        fields: `description`, `monitors`, `requires`, `max_strength`.
    """
    body = _body(name, interventions, publish=publish, **fields)
    return Call("POST", _PATH, _read, json=body, is_kept=True)


def _validate(name: str, interventions: Sequence[Intervention], **fields: Any) -> Call[PlanReport]:
    """What a profile would do on the loaded model, or every problem it has; saves nothing."""
    return Call("POST", f"{_PATH}:validate", _read_plan, json=_body(name, interventions, **fields))


def _publish(reference: str) -> Call[Profile]:
    """Let requests use a profile: its newest version, or that of `name@2`."""
    return Call("POST", below(_PATH, reference, "publish"), _read, is_kept=True)


def _list(*, limit: int | None = None, cursor: str | None = None) -> Call[Page[Profile]]:
    """The newest version of every profile, a page at a time."""
    return Call("GET", _PATH, _read_page, params={"limit": limit, "cursor": cursor})


def _get(reference: str) -> Call[Profile]:
    """One profile: `name` is its newest published version, `name@2` that version."""
    return Call("GET", below(_PATH, reference), _read)


def _versions(
    name: str, *, limit: int | None = None, cursor: str | None = None
) -> Call[Page[Profile]]:
    """All versions of a profile, newest first."""
    path = below(_PATH, name, "versions")
    return Call("GET", path, _read_page, params={"limit": limit, "cursor": cursor})


def _delete(reference: str) -> Call[Archived]:
    """Archive a profile or a version of it."""
    return Call("DELETE", below(_PATH, reference), _read_archived)


def _list_aliases(*, limit: int | None = None, cursor: str | None = None) -> Call[Page[Alias]]:
    """Every alias, a page at a time."""
    return Call("GET", _ALIASES, _read_aliases, params={"limit": limit, "cursor": cursor})


def _set_alias(alias: str, profile: str) -> Call[Alias]:
    """Point an alias to `name` or `name@version`; it may exist already."""
    return Call("PUT", below(_ALIASES, alias), _read_alias, json={"profile": profile})


def _delete_alias(alias: str) -> Call[None]:
    """Remove an alias; the profile stays."""
    return Call("DELETE", below(_ALIASES, alias), _read_nothing)


def _body(name: str, interventions: Sequence[Intervention], **fields: Any) -> dict[str, Any]:
    return {"name": name, "interventions": list(interventions), **fields}


def _read(response: httpx.Response) -> Profile:
    return Profile.model_validate(response.json())


def _read_page(response: httpx.Response) -> Page[Profile]:
    return Page[Profile].model_validate(response.json())


def _read_plan(response: httpx.Response) -> PlanReport:
    return PlanReport.model_validate(response.json())


def _read_archived(response: httpx.Response) -> Archived:
    return Archived.model_validate(response.json())


def _read_alias(response: httpx.Response) -> Alias:
    return Alias.model_validate(response.json())


def _read_aliases(response: httpx.Response) -> Page[Alias]:
    return Page[Alias].model_validate(response.json())


def _read_nothing(_: httpx.Response) -> None:
    return None


class Profiles(Resource[_S]):
    """The profiles of the registry."""

    create = Endpoint(_create)
    validate = Endpoint(_validate)
    publish = Endpoint(_publish)
    list = Endpoint(_list)
    get = Endpoint(_get)
    versions = Endpoint(_versions)
    delete = Endpoint(_delete)


class Aliases(Resource[_S]):
    """Names that point to profiles."""

    list = Endpoint(_list_aliases)
    set = Endpoint(_set_alias)
    delete = Endpoint(_delete_alias)
