"""Taking in directions: read, checked against the loaded model, stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

from server.store import Actor, DirectionRecord, SaveResult, Store
from steering.compatibility import check_direction
from steering.directions import Direction, DirectionKind
from steering.documents import Document, Layers, SiteName, Texts, refused, unknown_field
from steering.errors import FormatError, SteeringError, UnsafeFormatError
from steering.formats import (
    NUMBERS_SCHEMA,
    TENSORS_SCHEMA,
    UPLOAD_BOUNDS,
    FileBounds,
    dump_direction,
    load_upload,
    tensors_from_json,
)
from steering.model_spec import ModelSpec
from steering.sites import SitePoint

_GGUF_MAGIC: Final = b"GGUF"
_LARGE_DOSE: Final = 3.0
_MAX_TEXT: Final = 256
_LENGTHS: Final = frozenset({"vector", "shift"})


class InvalidGgufError(FormatError):
    """An uploaded GGUF file cannot be read as a control vector."""

    code = "invalid_gguf"


class InvalidSafetensorsError(FormatError):
    """An uploaded file cannot be read as safetensors."""

    code = "invalid_safetensors"


def _short_text(value: Any) -> Any:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise refused(f"is not a text of at most {_MAX_TEXT} characters")
    return value


def _kind(value: Any) -> Any:
    if value not in list(DirectionKind):
        raise refused(f"is {str(value)[:80]!r}; expected one of {', '.join(DirectionKind)}")
    return value


def _object(value: Any) -> Any:
    if value and not isinstance(value, Mapping):
        raise refused("is not an object")
    return value or {}


_ShortText = Annotated[str, BeforeValidator(_short_text), Field(max_length=_MAX_TEXT)]


class DirectionMetadata(Document):
    """What an uploaded file does not say itself; what the file says may be left out."""

    noun: ClassVar[str] = "metadata"
    subject: ClassVar[str] = "direction"

    name: _ShortText = Field(description="Registry name: 1 to 64 of a-z 0-9 . _ -")
    kind: Annotated[DirectionKind, BeforeValidator(_kind)] | None = Field(
        default=None, description="What the tensors mean."
    )
    site: Annotated[SiteName, BeforeValidator(lambda value: str(value)[:80])] | None = Field(
        default=None, description="Where the tensors belong."
    )
    layers: Layers | None = Field(
        default=None, description="Layers (0-based, ascending) they were made for, one or a list."
    )
    model_fingerprint: _ShortText | None = Field(
        default=None, description="Model they were made for; by default any of this width."
    )
    requires: Texts = Field(default=(), description="Permissions that a key must hold to use it.")
    provenance: Annotated[dict[str, Any], BeforeValidator(_object)] = Field(
        default_factory=dict, description="Method, data hash, source and the like; free JSON."
    )
    tags: Texts = Field(default=(), description="Free labels.")

    @classmethod
    def unknown(cls, key: object) -> SteeringError:
        """The refusal of an unknown member, by its place in the form."""
        return unknown_field(f"metadata.{key!s:.60}", cls.known(), cls.noun, "")


class DirectionDocument(DirectionMetadata):
    """A direction as one JSON object."""

    noun: ClassVar[str] = "a direction"

    kind: Annotated[DirectionKind, BeforeValidator(_kind)] = Field(
        description="What the tensors mean."
    )
    site: Annotated[SiteName, BeforeValidator(lambda value: str(value)[:80])] = Field(
        description="Where the tensors belong."
    )
    layers: Layers = Field(
        description="Layers (0-based, ascending) they were made for, one or a list."
    )
    tensors: Annotated[Any, WithJsonSchema({"anyOf": [TENSORS_SCHEMA, NUMBERS_SCHEMA]})] = Field(
        description="Tensors by name: nested lists of numbers, or bytes with dtype and shape. The "
        "one tensor of a `vector` may stand here by itself, as a list."
    )

    @classmethod
    def prepare(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Name the tensor of a vector that is given as a bare list."""
        tensors = document.get("tensors")
        if isinstance(tensors, list) and tensors and document.get("kind") == DirectionKind.VECTOR:
            return {**document, "tensors": {"vector": tensors}}
        return document

    @classmethod
    def unknown(cls, key: object) -> SteeringError:
        """The refusal of an unknown member."""
        return unknown_field(key, cls.known(), cls.noun, "")


@dataclass(frozen=True, slots=True)
class DirectionUpload:
    """The result of an upload: the version stored, and warnings about it."""

    saved: SaveResult[DirectionRecord]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Uploader:
    """Reads uploads for one model.

    Attributes:
        store: Where accepted directions go.
        spec: Model they must fit.
        bounds: Bounds of the files that callers send; directions made here have none.
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
        known = dict(DirectionDocument.from_dict(document))
        tensors = tensors_from_json(known.pop("tensors"), self.bounds)
        direction = Direction(**known, tensors=tensors)
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
        known = dict(DirectionMetadata.from_dict(metadata))
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
