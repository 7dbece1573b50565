"""A file somebody sends, whatever it is: told apart by its first bytes, never by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from steering.directions import Direction, DirectionKind
from steering.errors import InvalidFieldError
from steering.model_spec import ModelSpec
from steering.sites import Site

from .bounds import UPLOAD_BOUNDS, FileBounds
from .gguf_control_vector import load_control_vector
from .gguf_file import GGUF_MAGIC
from .native import load_direction


def load_upload(
    data: bytes,
    name: str,
    *,
    kind: DirectionKind | None = None,
    site: Site | None = None,
    layers: Sequence[int] | None = None,
    model_fingerprint: str | None = None,
    requires: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
    model: ModelSpec | None = None,
    bounds: FileBounds = UPLOAD_BOUNDS,
) -> Direction:
    """Read an uploaded safetensors file or GGUF control vector as a direction.

    A control vector says itself what it is (kind `vector`, site `resid_post`, its layers), so
    what the caller says of it must agree; and it says of which model, which must be `model`.

    Raises:
        FormatError: Neither of the two formats, or broken; `UnsafeFormatError` for pickles.
        InvalidFieldError: kind, site or layers is missing, or disagrees with a control vector.
        IncompatibleModelError: A control vector of another model.
        SteeringError: The tensors cannot be used; see `Direction`.
    """
    if not data.startswith(GGUF_MAGIC):
        return load_direction(
            data,
            name,
            kind=kind,
            site=site,
            layers=layers,
            model_fingerprint=model_fingerprint,
            requires=requires,
            provenance=provenance,
            tags=tags,
            bounds=bounds,
        )
    direction = load_control_vector(
        data, name, model_fingerprint=model_fingerprint, model=model, bounds=bounds
    )
    _require_equal("kind", kind, direction.kind)
    _require_equal("site", site, direction.site)
    _require_equal("layers", None if layers is None else tuple(layers), direction.layers)
    return dataclasses.replace(
        direction,
        requires=tuple(requires),
        provenance={**direction.provenance, **(provenance or {})},
        tags=tuple(tags),
    )


def _require_equal(field: str, given: Any, own: Any) -> None:
    if given is not None and given != own:
        shown = list(own) if isinstance(own, tuple) else own
        raise InvalidFieldError(
            f"{field} disagrees with the control vector, whose {field} is {shown!s}; leave it out",
            param=field,
        )
