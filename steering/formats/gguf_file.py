"""The header of a GGUF file, read within bounds: keys, and where each tensor's bytes are.

Of the format (ggml, docs/gguf.md) what a control vector needs: versions 2 and 3, little-endian,
and as in llama.cpp no arrays of arrays.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from steering.errors import FormatError

from .bounds import FileBounds

GGUF_MAGIC: Final = b"GGUF"

_VERSIONS: Final = (2, 3)
_DEFAULT_ALIGNMENT: Final = 32
_STRING, _ARRAY = 8, 9
_SCALARS: Final = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_MAX_DIMS: Final = 4
_MAX_ALIGNMENT: Final = 2**16


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor's description.

    Attributes:
        shape: Its shape as stored, the innermost dimension first.
        type: Number of its GGUF type: 0 is F32, 1 is F16.
        offset: Offset of its bytes from the end of the header.
    """

    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """The contents of a GGUF file, its header read and its tensors still bytes.

    Attributes:
        fields: Its keys and their values, with text as bytes and None for an array.
        tensors: Its tensors by name, in the file's order.
        alignment: Number of bytes that the tensors' offsets are multiples of.
        body: Everything after the header.
    """

    fields: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]
    alignment: int
    body: memoryview

    def text(self, key: str) -> str | None:
        """The text under `key`, or None without such a key.

        Raises:
            FormatError: It is not a text.
        """
        value = self.fields.get(key)
        if value is None:
            return None
        if not isinstance(value, bytes):
            _refuse(f"{key} is not a text")
        return _decoded(value, key)

    def integer(self, key: str) -> int | None:
        """The integer under `key`, or None without such a key.

        Raises:
            FormatError: It is not an integer.
        """
        value = self.fields.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            _refuse(f"{key} is not an integer")
        return value


def read_gguf(data: bytes, bounds: FileBounds) -> GgufFile:
    """Read a file; its work is bounded by `bounds` and the number of bytes.

    Raises:
        FormatError: Not a GGUF file, broken, or its header exceeds the bounds.
    """
    if not data.startswith(GGUF_MAGIC):
        _refuse("it does not begin with GGUF")
    header = _Header(data, bounds.max_header_bytes)
    version = header.number("I")
    if version not in _VERSIONS:
        _refuse(f"its version is {version}; expected 2 or 3, little-endian")
    num_tensors, num_fields = header.number("Q"), header.number("Q")
    bounds.check_tensor_count(num_tensors, noun="GGUF file")
    fields: dict[str, Any] = {}
    for _ in range(num_fields):
        key = header.name("a key")
        if key in fields:
            _refuse(f"it has the key {key[:80]!r} twice")
        fields[key] = header.value(key)
    tensors: dict[str, GgufTensor] = {}
    for _ in range(num_tensors):
        name = header.name("a tensor's name")
        if name in tensors:
            _refuse(f"it has the tensor {name[:80]!r} twice")
        tensors[name] = header.tensor(name)
    alignment = _alignment(fields)
    body = memoryview(data)[header.at + padding(header.at, alignment) :]
    return GgufFile(fields, tensors, alignment, body)


def padding(size: int, alignment: int = _DEFAULT_ALIGNMENT) -> int:
    """Bytes from `size` to the next multiple of `alignment`."""
    return -size % alignment


class _Header:
    """Reads one value after another, never beyond its bounds."""

    def __init__(self, data: bytes, max_bytes: int) -> None:
        self._data = data
        self._end = min(len(data), max_bytes)
        self._max_bytes = max_bytes
        self.at = len(GGUF_MAGIC)

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        self.skip(size)
        return self._data[self.at - size : self.at]

    def skip(self, size: int) -> None:
        """Go on by `size` bytes."""
        if size > self._end - self.at:
            if self._end < len(self._data):
                _refuse(f"its header has more than {self._max_bytes} bytes")
            _refuse("it ends within its header")
        self.at += size

    def number(self, code: str) -> Any:
        """The next number of a `struct` type."""
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def string(self) -> bytes:
        """The next text."""
        return self.take(self.number("Q"))

    def name(self, noun: str) -> str:
        """The next text, which names something."""
        return _decoded(self.string(), noun)

    def value(self, key: str) -> Any:
        """The next value of a key; None for an array, which is skipped."""
        kind = self.number("I")
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._skip_array(key)
        return self.number(self._scalar(kind, key))

    def tensor(self, name: str) -> GgufTensor:
        """The next tensor's description."""
        num_dims = self.number("I")
        if num_dims > _MAX_DIMS:
            _refuse(f"{name[:80]!r} has {num_dims} dimensions; expected at most {_MAX_DIMS}")
        shape = tuple(self.number("Q") for _ in range(num_dims))
        return GgufTensor(shape, self.number("I"), self.number("Q"))

    def _skip_array(self, key: str) -> None:
        kind, length = self.number("I"), self.number("Q")
        if kind == _STRING:
            for _ in range(length):
                self.skip(self.number("Q"))
        else:
            self.skip(struct.calcsize(f"<{self._scalar(kind, key)}") * length)

    def _scalar(self, kind: int, key: str) -> str:
        if kind not in _SCALARS:
            _refuse(f"the value of {key[:80]!r} has the unknown or nested type {kind}")
        return _SCALARS[kind]


def _alignment(fields: Mapping[str, Any]) -> int:
    value = fields.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or not 1 <= value <= _MAX_ALIGNMENT or value & (value - 1):
        _refuse(f"general.alignment is not a power of two up to {_MAX_ALIGNMENT}")
    return value


def _decoded(raw: bytes, noun: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        _refuse(f"{noun} is not UTF-8")


def _refuse(reason: str) -> NoReturn:
    raise FormatError(f"not a GGUF control vector: {reason}", param="file")
