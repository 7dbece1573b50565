"""The files of a checkpoint in Hugging Face format, read and written tensor by tensor."""

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

INDEX_FILE: Final = "model.safetensors.index.json"
"""Name of the file that says which shard holds which tensor."""

FLOAT_DTYPES: Final[Mapping[str, torch.dtype]] = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
}
"""Dtypes that weights may have, by their names in the file."""

_SINGLE_FILE: Final = "model.safetensors"
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


class CheckpointFiles:
    """Reads a checkpoint without loading it; changes nothing.

    Args:
        folder: Holds `model.safetensors`, or shards with an index, and `config.json`.
        allow_quantised: Whether weights may be quantised; their tensors can then not be read.

    Raises:
        CheckpointError: It does not, or its weights are quantised and may not be.
    """

    def __init__(self, folder: Path, *, allow_quantised: bool = False) -> None:
        self.folder = folder
        self.config: dict[str, Any] = _read_json(folder / "config.json")
        if not allow_quantised:
            self.refuse_quantised()
        self.shards = {name: Shard(folder / name) for name in self._shard_files()}
        self._owner: dict[str, Shard] = {}
        for shard in self.shards.values():
            for name in shard.names:
                if (other := self._owner.setdefault(name, shard)) is not shard:
                    raise CheckpointError(
                        f"{name} is in both {other.path.name} and {shard.path.name}; expected each "
                        "tensor once",
                        param="model",
                    )

    def _shard_files(self) -> list[str]:
        if not self.is_sharded:
            return [_SINGLE_FILE]
        places = _read_json(self.folder / INDEX_FILE).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(at, str) for at in places.values()):
            raise CheckpointError(
                f"{INDEX_FILE} has no 'weight_map' from tensors to files", param="model"
            )
        files = sorted(set(places.values()))
        outside = [name for name in files if Path(name).name != name]
        if outside:
            raise CheckpointError(
                f"{INDEX_FILE} names {outside[0]!r}; expected files beside it", param="model"
            )
        return files

    @property
    def quantisation(self) -> str | None:
        """How the weights are quantised, as the configuration says; None where they are not."""
        return quantisation_of(self.config)

    def refuse_quantised(self) -> None:
        """Check that the weights are in floating point.

        Raises:
            CheckpointError: They are quantised.
        """
        if method := self.quantisation:
            raise CheckpointError(
                f"the checkpoint is quantised ({method}); expected weights in floating point. Give "
                "the original; for steered weights bake that and quantise the result",
                param="model",
            )

    @property
    def is_sharded(self) -> bool:
        """Whether its weights are in several files with an index; a single file comes first."""
        return not (self.folder / _SINGLE_FILE).is_file()

    @property
    def loading_dtype(self) -> torch.dtype | None:
        """What weights are rounded to when they are loaded; None where they are loaded as they are.

        Files may hold wider numbers than the configuration says.
        """
        for config in (self.config, self.config.get("text_config") or {}):
            found = config.get("dtype") or config.get("torch_dtype")  # the older name
            dtype = getattr(torch, found, None) if isinstance(found, str) else None
            if isinstance(dtype, torch.dtype):
                return dtype
        return None

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every tensor."""
        return tuple(self._owner)

    def shard_of(self, name: str) -> Shard:
        """The shard that holds a tensor."""
        return self._owner[name]

    def tensor(self, name: str) -> Tensor:
        """A tensor, on the CPU.

        Raises:
            CheckpointError: It is not of floating point.
        """
        shard = self._owner[name]
        if shard.dtype(name) not in FLOAT_DTYPES:
            raise CheckpointError(
                f"{name} is stored as {shard.dtype(name)}; expected one of "
                f"{', '.join(FLOAT_DTYPES)}",
                param="model",
            )
        return shard.tensor(name)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}", param="model") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{path.name} is not a JSON object", param="model")
    return document


def quantisation_of(config: Any) -> str | None:
    """How the weights are quantised, as the configuration or one inside it says; or None."""
    if not isinstance(config, dict):
        return None
    for key in ("quantization_config", "compression_config"):
        if found := config.get(key):
            return str(found.get("quant_method", key) if isinstance(found, dict) else key)
    return next(filter(None, map(quantisation_of, config.values())), None)
