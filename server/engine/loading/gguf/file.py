"""The head of a GGUF file: what it says about the model, and which tensors it holds.

`gguf.GGUFReader` makes an array of each of the hundred thousand entries of a vocabulary, which
takes seconds; here they are stepped over.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
# Kinds of values, by their number in a file, as struct reads them.
_NUMBERS: Final = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING: Final = 8
_ARRAY: Final = 9
_MAX_LISTED: Final = 4096
_MAX_DIMENSIONS: Final = 8
_ALIGNMENT: Final = 32
_FLOATS: Final = {0: "float32", 1: "float16", 30: "bfloat16"}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor is in its file.

    Attributes:
        shape: Rows first, as in torch.
        kind: How it is stored, by ggml's number: 0 is float32.
        start: Byte of the file at which its data begins.
    """

    shape: tuple[int, ...]
    kind: int
    start: int

    @property
    def num_elements(self) -> int:
        """Elements it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class GgufFile:
    """What a GGUF file holds, without the tensors themselves.

    Attributes:
        path: The file.
        metadata: Its values by key. Arrays are lists, but for those of strings, and of more than
            4096 numbers, which are given as their length.
        tensors: Its tensors by name.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """The architecture's name in llama.cpp."""
        return str(self.metadata.get("general.architecture"))

    @property
    def dtype(self) -> str:
        """Data type to serve it in: of weights in floating point their own, else bfloat16."""
        kinds = {tensor.kind for tensor in self.tensors.values()}
        if not kinds <= _FLOATS.keys():
            return "bfloat16"
        found = {_FLOATS[kind] for kind in kinds}  # norms are in float32 beside narrower weights
        return next((name for name in ("bfloat16", "float16") if name in found), "float32")

    def float32_values(self, name: str) -> list[float]:
        """The elements of a tensor that is stored in float32.

        Raises:
            ValueError: It is stored otherwise, or is cut off.
        """
        tensor = self.tensors[name]
        if _FLOATS.get(tensor.kind) != "float32":
            raise ValueError(f"{name} is not stored in float32")
        with self.path.open("rb") as file:
            file.seek(tensor.start)
            data = file.read(4 * tensor.num_elements)
        if len(data) < 4 * tensor.num_elements:
            raise ValueError(f"{self.path.name} is cut off")
        return list(struct.unpack(f"<{tensor.num_elements}f", data))


def read_gguf(path: Path) -> GgufFile:
    """Read the head of a file.

    Raises:
        ValueError: It is not a GGUF file of version 2 or 3, or is cut off.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{path.name} does not begin as a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Reader(path, data).file()
            except (struct.error, UnicodeDecodeError) as error:
                raise ValueError(f"{path.name} is cut off or damaged: {error}") from error


class _Reader:
    """Walks through the head once, from the magic on."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._at = len(_MAGIC)

    def file(self) -> GgufFile:
        version = self._number("I")
        if version not in _VERSIONS:
            raise ValueError(
                f"{self._path.name} is of GGUF version {version}; expected one of "
                f"{', '.join(map(str, _VERSIONS))}"
            )
        num_tensors, num_values = self._number("Q"), self._number("Q")
        metadata = {}
        for _ in range(num_values):
            key = self._string()
            metadata[key] = self._value(self._number("I"))
        listed = [
            (self._string(), self._shape(), self._number("I"), self._number("Q"))
            for _ in range(num_tensors)
        ]
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        data_start = -(-self._at // alignment) * alignment
        tensors = {
            name: GgufTensor(shape, kind, data_start + start) for name, shape, kind, start in listed
        }
        return GgufFile(self._path, metadata, tensors)

    def _number(self, kind: str) -> Any:
        [value] = struct.unpack_from(f"<{kind}", self._data, self._at)
        self._at += struct.calcsize(f"<{kind}")
        return value

    def _string(self) -> str:
        length = self._number("Q")
        self._step(length)
        return self._data[self._at - length : self._at].decode()

    def _step(self, num_bytes: int) -> None:
        if num_bytes > len(self._data) - self._at:
            raise ValueError(f"{self._path.name} is cut off or damaged")
        self._at += num_bytes

    def _shape(self) -> tuple[int, ...]:
        num_dimensions = self._number("I")
        if num_dimensions > _MAX_DIMENSIONS:
            raise ValueError(f"{self._path.name} is damaged: a tensor of {num_dimensions} axes")
        return tuple(reversed([self._number("Q") for _ in range(num_dimensions)]))

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array()
        if kind not in _NUMBERS:
            raise ValueError(f"{self._path.name} is damaged: a value of kind {kind}")
        return self._number(_NUMBERS[kind])

    def _array(self) -> Any:
        kind, length = self._number("I"), self._number("Q")
        if kind == _STRING:
            for _ in range(length):
                self._step(self._number("Q"))
            return length
        if kind not in _NUMBERS:
            raise ValueError(f"{self._path.name} is damaged: an array of kind {kind}")
        if length > _MAX_LISTED:
            self._step(length * struct.calcsize(_NUMBERS[kind]))
            return length
        return [self._number(_NUMBERS[kind]) for _ in range(length)]
