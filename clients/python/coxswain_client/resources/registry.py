"""What the registry holds: directions, profiles, and the aliases that point to profiles."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import httpx

from coxswain_client.call import Call, below, read_as
from coxswain_client.endpoint import Endpoint, Resource
from coxswain_client.models.record import Page
from coxswain_client.models.registry import Alias, Archived, Direction, PlanReport, Profile
from coxswain_client.models.steering import Intervention
from coxswain_client.sender import AsyncSender, Sender

_S = TypeVar("_S", bound=Sender | AsyncSender)
_DIRECTIONS = "/v1/steering/directions"
_PROFILES = "/v1/steering/profiles"
_ALIASES = "/v1/steering/aliases"


def _upload_direction(file: bytes, *, filename: str, **metadata: Any) -> Call[Direction]:
    """Store a file as a direction; the same bytes again are the same version.

    Args:
        file: Content of a safetensors file or of a GGUF control vector.
        filename: Says which by its ending, `.safetensors` or `.gguf`.
        metadata: `name`, and what the file itself does not say: `kind`, `site`, `layers`,
            `provenance`, `tags`, `requires`.
    """
    parts = {
        "file": (filename, file, "application/octet-stream"),
        "metadata": (None, json.dumps(metadata).encode(), "application/json"),
    }
    return Call("POST", _DIRECTIONS, read_as(Direction), files=parts, is_kept=True)


def _create_direction(
    *,
    name: str,
    kind: str,
    site: str,
    layers: int | Sequence[int],
    tensors: Mapping[str, Any],
    **metadata: Any,
) -> Call[Direction]:
    """Store a direction given as numbers.

    Args:
        name: Registry name.
        kind: vector, basis, transport, diagonal, plane, heads or probe.
        site: Where it belongs, such as `resid_post`.
        layers: Layers it belongs to, or the one.
        tensors: By name: nested lists, or `{dtype, shape, data}` with base64 data.
        metadata: `provenance`, `tags`, `requires`, `model_fingerprint`.
    """
    body = {
        "name": name,
        "kind": kind,
        "site": site,
        "layers": layers if isinstance(layers, int) else list(layers),
        "tensors": dict(tensors),
        **metadata,
    }
    return Call("POST", _DIRECTIONS, read_as(Direction), json=body, is_kept=True)


def _list_directions(
    *, limit: int | None = None, cursor: str | None = None
) -> Call[Page[Direction]]:
    """The newest version of every direction, a page at a time."""
    params = {"limit": limit, "cursor": cursor}
    return Call("GET", _DIRECTIONS, read_as(Page[Direction]), params=params)


def _get_direction(reference: str) -> Call[Direction]:
    """One direction: `name` is its newest version, `name@2` that version."""
    return Call("GET", below(_DIRECTIONS, reference), read_as(Direction))


def _direction_versions(
    name: str, *, limit: int | None = None, cursor: str | None = None
) -> Call[Page[Direction]]:
    """All versions of a direction, newest first."""
    path = below(_DIRECTIONS, name, "versions")
    return Call("GET", path, read_as(Page[Direction]), params={"limit": limit, "cursor": cursor})


def _direction_tensors(reference: str) -> Call[bytes]:
    """The stored safetensors file, byte for byte."""
    return Call("GET", below(_DIRECTIONS, reference, "tensors"), _read_bytes)


def _delete_direction(reference: str) -> Call[Archived]:
    """Archive a direction or a version of it; refused while a profile uses it."""
    return Call("DELETE", below(_DIRECTIONS, reference), read_as(Archived))


def _read_bytes(response: httpx.Response) -> bytes:
    return response.content


class Directions(Resource[_S]):
    """The directions of the registry."""

    upload = Endpoint(_upload_direction)
    create = Endpoint(_create_direction)
    list = Endpoint(_list_directions)
    get = Endpoint(_get_direction)
    versions = Endpoint(_direction_versions)
    tensors = Endpoint(_direction_tensors)
    delete = Endpoint(_delete_direction)


def _create_profile(
    name: str, interventions: Sequence[Intervention], *, publish: bool = False, **fields: Any
) -> Call[Profile]:
    """Save a version of a profile.

    Args:
        name: Registry name.
        interventions: In order of application.
        publish: Whether requests may use it at once.
        fields: `description`, `monitors`, `requires`, `max_strength`.
    """
    body = _profile_body(name, interventions, publish=publish, **fields)
    return Call("POST", _PROFILES, read_as(Profile), json=body, is_kept=True)


def _validate_profile(
    name: str, interventions: Sequence[Intervention], **fields: Any
) -> Call[PlanReport]:
    """What a profile would do on the loaded model, or every problem it has; saves nothing."""
    body = _profile_body(name, interventions, **fields)
    return Call("POST", f"{_PROFILES}:validate", read_as(PlanReport), json=body)


def _publish_profile(reference: str) -> Call[Profile]:
    """Let requests use a profile: its newest version, or that of `name@2`."""
    return Call("POST", below(_PROFILES, reference, "publish"), read_as(Profile), is_kept=True)


def _list_profiles(*, limit: int | None = None, cursor: str | None = None) -> Call[Page[Profile]]:
    """The newest version of every profile, a page at a time."""
    params = {"limit": limit, "cursor": cursor}
    return Call("GET", _PROFILES, read_as(Page[Profile]), params=params)


def _get_profile(reference: str) -> Call[Profile]:
    """One profile: `name` is its newest published version, `name@2` that version."""
    return Call("GET", below(_PROFILES, reference), read_as(Profile))


def _profile_versions(
    name: str, *, limit: int | None = None, cursor: str | None = None
) -> Call[Page[Profile]]:
    """All versions of a profile, newest first."""
    path = below(_PROFILES, name, "versions")
    return Call("GET", path, read_as(Page[Profile]), params={"limit": limit, "cursor": cursor})


def _delete_profile(reference: str) -> Call[Archived]:
    """Archive a profile or a version of it."""
    return Call("DELETE", below(_PROFILES, reference), read_as(Archived))


def _list_aliases(*, limit: int | None = None, cursor: str | None = None) -> Call[Page[Alias]]:
    """Every alias, a page at a time."""
    return Call("GET", _ALIASES, read_as(Page[Alias]), params={"limit": limit, "cursor": cursor})


def _set_alias(alias: str, profile: str) -> Call[Alias]:
    """Point an alias to `name` or `name@version`; it may exist already."""
    return Call("PUT", below(_ALIASES, alias), read_as(Alias), json={"profile": profile})


def _delete_alias(alias: str) -> Call[None]:
    """Remove an alias; the profile stays."""
    return Call("DELETE", below(_ALIASES, alias), _read_nothing)


def _profile_body(
    name: str, interventions: Sequence[Intervention], **fields: Any
) -> dict[str, Any]:
    return {"name": name, "interventions": list(interventions), **fields}


def _read_nothing(_: httpx.Response) -> None:
    return None


class Profiles(Resource[_S]):
    """The profiles of the registry."""

    create = Endpoint(_create_profile)
    validate = Endpoint(_validate_profile)
    publish = Endpoint(_publish_profile)
    list = Endpoint(_list_profiles)
    get = Endpoint(_get_profile)
    versions = Endpoint(_profile_versions)
    delete = Endpoint(_delete_profile)


class Aliases(Resource[_S]):
    """Names that point to profiles."""

    list = Endpoint(_list_aliases)
    set = Endpoint(_set_alias)
    delete = Endpoint(_delete_alias)
