"""One safetensors file of a checkpoint: read tensor by tensor, written tensor by tensor."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from steering.formats import TensorPiece, safetensors_parts
from steering.tensor_bytes import tensor_bytes

from .errors import CheckpointError

__all__ = ["FLOAT_DTYPES", "Shard", "piece_of", "write_shard"]

FLOAT_DTYPES: Final[Mapping[str, torch.dtype]] = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
}
"""Dtypes that weights may have, by their names in the file."""

_PREFIX_BYTES: Final = 8
_COPY_BYTES: Final = 16 * 2**20


class Shard:
    """A safetensors file; holds its header, and no tensor.

    Raises:
        CheckpointError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = safe_open(path, framework="pt")
            with path.open("rb") as file:
                length = int.from_bytes(file.read(_PREFIX_BYTES), "little")
                header: dict[str, Any] = json.loads(file.read(length))
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"{path.name} cannot be read: {error}", param="model") from None
        self._data_start = _PREFIX_BYTES + length
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        self._header = header

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its tensors, in the order of their data."""
        return tuple(sorted(self._header, key=lambda name: self._header[name]["data_offsets"]))

    def dtype(self, name: str) -> str:
        """The tensor's dtype, as the file names it."""
        return str(self._header[name]["dtype"])

    def tensor(self, name: str) -> Tensor:
        """The tensor, on the CPU; a view of the mapped file."""
        tensor: Tensor = self._file.get_tensor(name)  # type: ignore[no-untyped-call]
        return tensor

    def piece(self, name: str, *, under: str | None = None) -> TensorPiece:
        """The tensor as it is, to be written under its name or another."""
        entry = self._header[name]
        start, stop = entry["data_offsets"]

        def read() -> Iterator[bytes]:
            with self.path.open("rb") as file:
                file.seek(self._data_start + start)
                left = stop - start
                while left:
                    part = file.read(min(left, _COPY_BYTES))
                    left -= len(part)
                    yield part

        return TensorPiece(under or name, entry["dtype"], tuple(entry["shape"]), stop - start, read)


def piece_of(
    name: str, dtype: torch.dtype, shape: Sequence[int], make: Callable[[], Tensor]
) -> TensorPiece:
    """A tensor that is computed when it is its turn: of `dtype` and `shape`."""
    [written] = [key for key, value in FLOAT_DTYPES.items() if value == dtype]

    def read() -> Iterator[bytes]:
        yield tensor_bytes(make())

    return TensorPiece(name, written, tuple(shape), math.prod(shape) * dtype.itemsize, read)


def write_shard(path: Path, pieces: Iterable[TensorPiece], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file that is on the disk when this returns.

    The data of one piece at a time is in memory.
    """
    with path.open("xb") as file:
        file.writelines(safetensors_parts(pieces, metadata))
        file.flush()
        os.fsync(file.fileno())
