"""Taking in directions: read, checked against the loaded model, stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from server.resolver.errors import InvalidGgufError, InvalidSafetensorsError
from server.store import Actor, DirectionRecord, SaveResult, Store
from steering.compatibility import check_direction
from steering.directions import Direction, DirectionKind
from steering.errors import FormatError, InvalidFieldError, UnsafeFormatError
from steering.fields import check_keys, int_list, require, str_list
from steering.formats import (
    UPLOAD_BOUNDS,
    FileBounds,
    dump_direction,
    load_upload,
    tensors_from_json,
)
from steering.model_spec import ModelSpec
from steering.sites import Site, SitePoint, parse_site

__all__ = ["DirectionUpload", "Uploader"]

_METADATA: Final = frozenset(
    {"name", "kind", "site", "layers", "model_fingerprint", "requires", "provenance", "tags"}
)
_GGUF_MAGIC: Final = b"GGUF"
_LARGE_DOSE: Final = 3.0
_LENGTHS: Final = frozenset({"vector", "shift"})


@dataclass(frozen=True, slots=True)
class DirectionUpload:
    """What came of an upload: the version stored, and what is remarkable about it."""

    saved: SaveResult[DirectionRecord]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Uploader:
    """Reads uploads for one model.

    Attributes:
        store: Where accepted directions go.
        spec: Model they must fit.
        bounds: Of what callers send; what is made here has none.
    """

    store: Store
    spec: ModelSpec
    bounds: FileBounds = UPLOAD_BOUNDS

    def from_document(
        self, document: Mapping[str, Any], *, by: Actor, expected: str | None = None
    ) -> DirectionUpload:
        """Take `{name, kind, site, layers, tensors, ...}`.

        Raises:
            SteeringError: With `param` naming the field; nothing is stored.
        """
        check_keys(document, _METADATA | {"tensors"}, noun="a direction")
        tensors = require(document, "tensors", noun="direction")
        known = _read_metadata(document)
        for name in ("kind", "site", "layers"):
            require(document, name, noun="direction")
        direction = Direction(**known, tensors=tensors_from_json(tensors, self.bounds))
        return self._put(direction, dump_direction(direction), by, expected)

    def from_file(
        self,
        data: bytes,
        metadata: Mapping[str, Any],
        *,
        by: Actor,
        expected: str | None = None,
    ) -> DirectionUpload:
        """Take a safetensors file or GGUF control vector with what it does not say itself.

        A safetensors file is kept byte for byte; a control vector as the safetensors file that
        holds the same tensors.

        Raises:
            SteeringError: With `param` naming the field; nothing is stored.
        """
        check_keys(metadata, _METADATA, noun="metadata", prefix="metadata.")
        known = _read_metadata(metadata)
        is_gguf = data.startswith(_GGUF_MAGIC)
        try:
            direction = load_upload(
                data, known.pop("name"), **known, model=self.spec, bounds=self.bounds
            )
        except UnsafeFormatError:
            raise
        except FormatError as error:
            kind = InvalidGgufError if is_gguf else InvalidSafetensorsError
            raise kind(str(error), param=error.param) from error
        return self._put(direction, dump_direction(direction) if is_gguf else data, by, expected)

    def from_direction(self, direction: Direction, *, by: Actor) -> DirectionUpload:
        """Take a direction that was made here.

        Raises:
            SteeringError: It does not fit the model; nothing is stored.
        """
        return self._put(direction, dump_direction(direction), by, None)

    def _put(
        self, direction: Direction, blob: bytes, by: Actor, expected: str | None
    ) -> DirectionUpload:
        check_direction(direction, self.spec)
        saved = self.store.directions.put(direction, blob, by=by, expected=expected)
        return DirectionUpload(saved, tuple(_warnings(direction, self.spec)))


def _read_metadata(document: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {"name": _text(require(document, "name", noun="direction"), "name")}
    if document.get("kind") is not None:
        known["kind"] = _kind(document["kind"])
    if document.get("site") is not None:
        known["site"] = _site(document["site"])
    if document.get("layers") is not None:
        known["layers"] = int_list(document["layers"], "layers")
    if document.get("model_fingerprint") is not None:
        known["model_fingerprint"] = _text(document["model_fingerprint"], "model_fingerprint")
    known["requires"] = str_list(document.get("requires"), "requires")
    known["tags"] = str_list(document.get("tags"), "tags")
    provenance = document.get("provenance") or {}
    if not isinstance(provenance, Mapping):
        raise InvalidFieldError("provenance is not an object", param="provenance")
    known["provenance"] = dict(provenance)
    return known


def _text(value: Any, param: str) -> str:
    if not isinstance(value, str) or len(value) > 256:
        raise InvalidFieldError(f"{param} is not a text of at most 256 characters", param=param)
    return value


def _kind(value: Any) -> DirectionKind:
    if value not in list(DirectionKind):
        raise InvalidFieldError(
            f"kind is {str(value)[:80]!r}; expected one of {', '.join(DirectionKind)}", param="kind"
        )
    return DirectionKind(value)


def _site(value: Any) -> Site:
    return parse_site(value if isinstance(value, str) else str(value)[:80])


def _warnings(direction: Direction, spec: ModelSpec) -> list[str]:
    """Vectors so long that strength 1 would drown the residual stream."""
    warnings = []
    for layer in direction.layers:
        typical = spec.resid_norms.get(SitePoint(layer, direction.site))
        if typical is None:
            continue
        for name, tensor in direction.at(layer).items():
            length = float(tensor.norm())
            if name in _LENGTHS and length > _LARGE_DOSE * typical:
                warnings.append(
                    f"{name} of layer {layer} has norm {length:.3g}, {length / typical:.1f} times "
                    "the residual norm there; start with a small strength"
                )
    return warnings
