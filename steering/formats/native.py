"""Coxswain's own file of a direction: safetensors with what the tensors mean in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from steering.directions import Direction, DirectionKind
from steering.documents import Document, Layers, SiteName
from steering.errors import FormatError, InvalidFieldError
from steering.sites import Site

from .bounds import FileBounds
from .safetensors_file import SafetensorsFile, read_safetensors, write_safetensors

NATIVE_FORMAT: Final = "coxswain-direction-1"


class _Header(Document):
    """What a file of ours says of its tensors."""

    kind: DirectionKind
    site: SiteName
    layers: Layers


def dump_direction(direction: Direction) -> bytes:
    """The canonical safetensors file of a direction's tensors, kind, site and layers.

    Two directions with one digest give the same bytes, and only they do: name, version,
    provenance and tags are the registry's and are not in the file.
    """
    return write_safetensors(
        direction.tensors,
        {
            "format": NATIVE_FORMAT,
            "kind": direction.kind.value,
            "layers": json.dumps(list(direction.layers), separators=(",", ":")),
            "site": direction.site.value,
        },
    )


def load_direction(
    data: bytes,
    name: str,
    *,
    kind: DirectionKind | None = None,
    site: Site | None = None,
    layers: Sequence[int] | None = None,
    version: int | None = None,
    model_fingerprint: str | None = None,
    requires: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
    bounds: FileBounds | None = None,
) -> Direction:
    """Read a safetensors file as a direction.

    `kind`, `site` and `layers` given by the caller win over those in the file's metadata; each
    must come from one of the two. Metadata of files that are not Coxswain's own is not read.
    `bounds` are those of a stranger's file; None for one of ours.

    Raises:
        FormatError: The file cannot be read; `UnsafeFormatError` if it would need code.
        InvalidFieldError: kind, site or layers is given neither by the caller nor by the file.
        SteeringError: The tensors do not fit the kind; see `Direction`.
    """
    file = read_safetensors(data, bounds)
    own = _own_metadata(file)
    return Direction(
        name=name,
        kind=_required(kind or own.get("kind"), "kind"),
        site=_required(site or own.get("site"), "site"),
        layers=_required(own.get("layers") if layers is None else tuple(layers), "layers"),
        tensors=file.tensors,
        version=version,
        model_fingerprint=model_fingerprint,
        requires=tuple(requires),
        provenance=dict(provenance or {}),
        tags=tuple(tags),
    )


def _own_metadata(file: SafetensorsFile) -> dict[str, Any]:
    if file.metadata.get("format") != NATIVE_FORMAT:
        return {}
    try:
        layers = json.loads(file.metadata["layers"])
        kind, site = file.metadata["kind"], file.metadata["site"]
        return dict(_Header.from_dict({"kind": kind, "site": site, "layers": layers}))
    except (KeyError, ValueError, RecursionError):
        raise FormatError(
            f"__metadata__ says {NATIVE_FORMAT}, but its kind, site or layers cannot be read; "
            "give them with the file, and leave out the metadata",
            param="file",
        ) from None


def _required(value: Any, field: str) -> Any:
    if value is None:
        raise InvalidFieldError(
            f"{field} is given neither with the upload nor in the file's metadata; give it",
            param=field,
        )
    return value
