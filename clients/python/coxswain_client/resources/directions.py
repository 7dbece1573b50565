"""Directions: upload, look up, download, archive."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import httpx

from coxswain_client.call import Call, below
from coxswain_client.endpoint import Endpoint, Resource
from coxswain_client.models.page import Page
from coxswain_client.models.registry import Archived, Direction
from coxswain_client.sender import AsyncSender, Sender

__all__ = ["Directions"]

_S = TypeVar("_S", bound=Sender | AsyncSender)
_PATH = "/v1/steering/directions"


def _upload(file: bytes, *, filename: str, **metadata: Any) -> Call[Direction]:
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
    return Call("POST", _PATH, _read, files=parts, is_kept=True)


def _create(
    *,
    name: str,
    kind: str,
    site: str,
    layers: Sequence[int],
    tensors: Mapping[str, Any],
    **metadata: Any,
) -> Call[Direction]:
    """Store a direction given as numbers.

    Args:
        name: Registry name.
        kind: vector, basis, transport, diagonal, plane, heads or probe.
        site: Where it belongs, such as `resid_post`.
        layers: Layers it belongs to.
        tensors: By name: nested lists, or `{dtype, shape, data}` with base64 data.
        metadata: `provenance`, `tags`, `requires`, `model_fingerprint`.
    """
    body = {
        "name": name,
        "kind": kind,
        "site": site,
        "layers": list(layers),
        "tensors": dict(tensors),
        **metadata,
    }
    return Call("POST", _PATH, _read, json=body, is_kept=True)


def _list(*, limit: int | None = None, cursor: str | None = None) -> Call[Page[Direction]]:
    """The newest version of every direction, a page at a time."""
    return Call("GET", _PATH, _read_page, params={"limit": limit, "cursor": cursor})


def _get(reference: str) -> Call[Direction]:
    """One direction: `name` is its newest version, `name@2` that version."""
    return Call("GET", below(_PATH, reference), _read)


def _versions(
    name: str, *, limit: int | None = None, cursor: str | None = None
) -> Call[Page[Direction]]:
    """All versions of a direction, newest first."""
    path = below(_PATH, name, "versions")
    return Call("GET", path, _read_page, params={"limit": limit, "cursor": cursor})


def _tensors(reference: str) -> Call[bytes]:
    """The stored safetensors file, byte for byte."""
    return Call("GET", below(_PATH, reference, "tensors"), _read_bytes)


def _delete(reference: str) -> Call[Archived]:
    """Archive a direction or a version of it; refused while a profile uses it."""
    return Call("DELETE", below(_PATH, reference), _read_archived)


def _read(response: httpx.Response) -> Direction:
    return Direction.model_validate(response.json())


def _read_page(response: httpx.Response) -> Page[Direction]:
    return Page[Direction].model_validate(response.json())


def _read_bytes(response: httpx.Response) -> bytes:
    return response.content


def _read_archived(response: httpx.Response) -> Archived:
    return Archived.model_validate(response.json())


class Directions(Resource[_S]):
    """The directions of the registry."""

    upload = Endpoint(_upload)
    create = Endpoint(_create)
    list = Endpoint(_list)
    get = Endpoint(_get)
    versions = Endpoint(_versions)
    tensors = Endpoint(_tensors)
    delete = Endpoint(_delete)
