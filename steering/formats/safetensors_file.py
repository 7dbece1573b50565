"""Safetensors files: checked before they are parsed, and written the same byte for byte."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn

import safetensors
import torch
from safetensors.torch import load
from torch import Tensor

from steering.errors import FormatError, UnsafeFormatError, UnsupportedDtypeError
from steering.tensor_bytes import tensor_bytes

from .bounds import FileBounds, check_shape, check_tensor_name

_DTYPE_NAMES: Final = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_ITEM_BYTES: Final = {"F32": 4, "F16": 2, "BF16": 2}
_PREFIX_BYTES: Final = 8
_METADATA: Final = "__metadata__"
_UNSAFE_MAGIC: Final = {b"PK\x03\x04": "a zip archive (torch.save or npz)", b"\x80": "a pickle"}


@dataclass(frozen=True, eq=False, slots=True)
class SafetensorsFile:
    """What a safetensors file holds.

    Attributes:
        tensors: CPU tensors in F32, F16 or BF16, of one or two dimensions, by name.
        metadata: The file's own strings.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TensorPiece:
    """A tensor about to be written; its bytes are made when it is its turn.

    Attributes:
        name: Its name in the file.
        dtype: Its dtype as safetensors names it.
        shape: Its shape.
        num_bytes: Length of its data.
        read: Gives the data, in one part or several.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int
    read: Callable[[], Iterator[bytes]]

    @property
    def item_bytes(self) -> int:
        """Bytes of one element; 8 for a tensor without any."""
        return self.num_bytes // (math.prod(self.shape) or 1) or 8


def read_safetensors(data: bytes, bounds: FileBounds | None = None) -> SafetensorsFile:
    """Read `data`, refusing what would be slow, ambiguous or unsafe to parse.

    The header is scanned before the library sees the file: its length, its JSON (duplicate keys
    are an error, not "last wins"), the number, names, dtypes, shapes and places of tensors, the
    metadata. Numbers are not checked here; `Direction` refuses those that are not finite.

    Args:
        data: The file.
        bounds: Of a stranger's file; None for one of ours, which has none.

    Raises:
        UnsafeFormatError: A pickle or a zip archive.
        FormatError: Not a safetensors file, or larger than the bounds.
        UnsupportedDtypeError: A tensor is not F32, F16 or BF16.
        ShapeMismatchError: A tensor is not a vector or a matrix, or is empty.
        InvalidFieldError: A tensor's name is not one.
    """
    header, length = _read_header(data, bounds)
    metadata = _read_metadata(header.pop(_METADATA, {}), bounds)
    if not header:
        raise FormatError("the safetensors file holds no tensor", param="file")
    if bounds is not None:
        bounds.check_tensor_count(len(header), noun="safetensors file")
    for name, entry in header.items():
        check_tensor_name(name)
        _check_entry(name, entry)
    _check_places(header, len(data) - _PREFIX_BYTES - length)
    try:
        tensors = load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError):
        raise FormatError("not a valid safetensors file", param="file") from None
    return SafetensorsFile(tensors, metadata)


def write_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The one file of these tensors and strings: equal input gives equal bytes, on any machine.

    Raises:
        UnsupportedDtypeError: A tensor is not F32, F16 or BF16.
    """
    pieces = []
    for name, tensor in sorted(tensors.items()):
        if tensor.dtype not in _DTYPE_NAMES:
            _refuse_dtype(name, str(tensor.dtype))
        data = tensor_bytes(tensor)
        pieces.append(
            TensorPiece(
                name=name,
                dtype=_DTYPE_NAMES[tensor.dtype],
                shape=tuple(tensor.shape),
                num_bytes=len(data),
                read=partial(iter, (data,)),
            )
        )
    return b"".join(safetensors_parts(pieces, metadata))


def safetensors_parts(
    pieces: Iterable[TensorPiece], metadata: Mapping[str, str]
) -> Iterator[bytes]:
    """A safetensors file part by part, in which the data of one piece at a time is in memory.

    The library's own writer orders metadata by a randomised hash, so its bytes cannot address
    content. Here the header is sorted by name and padded to eight bytes. Tensors of wider dtypes
    come first, so that each is aligned as its reader recommends; of one width they keep the order
    of `pieces`.
    """
    ordered = sorted(pieces, key=lambda piece: -piece.item_bytes)
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    offset = 0
    for piece in ordered:
        stop = offset + piece.num_bytes
        header[piece.name] = {
            "dtype": piece.dtype,
            "shape": list(piece.shape),
            "data_offsets": [offset, stop],
        }
        offset = stop
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(_PREFIX_BYTES, "little") + text
    for piece in ordered:
        written = 0
        for part in piece.read():
            written += len(part)
            yield part
        assert written == piece.num_bytes, f"{piece.name} had another size"


def _read_header(data: bytes, bounds: FileBounds | None) -> tuple[dict[str, Any], int]:
    """The header and its length in bytes."""
    if data[_PREFIX_BYTES : _PREFIX_BYTES + 1] != b"{":
        _refuse_not_safetensors(data)
    length = int.from_bytes(data[:_PREFIX_BYTES], "little")
    largest = len(data) - _PREFIX_BYTES
    if bounds is not None:
        largest = min(bounds.max_header_bytes, largest)
    if not 2 <= length <= largest:
        raise FormatError(
            f"the safetensors header claims {length} bytes; expected 2 to {largest} in a file of "
            f"{len(data)}",
            param="file",
        )
    try:
        header = json.loads(
            data[_PREFIX_BYTES : _PREFIX_BYTES + length].decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
        )
    except FormatError:
        raise
    except (ValueError, RecursionError):
        raise FormatError("the safetensors header is not JSON in UTF-8", param="file") from None
    return header, length  # an object: it begins with a brace


def _refuse_not_safetensors(data: bytes) -> NoReturn:
    for magic, noun in _UNSAFE_MAGIC.items():
        if data.startswith(magic):
            raise UnsafeFormatError(
                f"the file is {noun}, which only code could read; expected safetensors. Convert "
                "it where you trust it: torch.load(..., weights_only=True), then "
                "safetensors.torch.save_file",
                param="file",
            )
    raise FormatError("not a safetensors file: no header at byte 8", param="file")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise FormatError(
                f"the safetensors header has {key[:80]!r} twice; expected each name once",
                param="file",
            )
        result[key] = value
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise FormatError(f"the safetensors header holds {name}; expected JSON", param="file")


def _read_metadata(metadata: Any, bounds: FileBounds | None) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError("__metadata__ is not an object of strings", param="file")
    size = sum(len(key.encode("utf-8", "replace")) for pair in metadata.items() for key in pair)
    if bounds is not None and size > bounds.max_metadata_bytes:
        raise FormatError(
            f"__metadata__ has {size} bytes; expected at most {bounds.max_metadata_bytes}",
            param="file",
        )
    return metadata


def _check_entry(name: str, entry: Any) -> None:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(
            f"the header entry of {name} does not have exactly dtype, shape and data_offsets",
            param="file",
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        _refuse_dtype(name, repr(dtype)[:20])
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise FormatError(
            f"the header entry of {name} has a shape or offsets that are not lists of sizes",
            param="file",
        )
    check_shape(name, shape, param=f"tensors.{name}")
    size = math.prod(shape) * _ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != size:
        raise FormatError(
            f"{name} occupies {offsets[1] - offsets[0]} bytes; its dtype and shape need {size}",
            param="file",
        )


def _check_places(header: Mapping[str, Any], size: int) -> None:
    """Tensors must follow each other without holes, to the end of the file."""
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
        start, stop = entry["data_offsets"]
        if start != end:
            raise FormatError(f"{name} begins at byte {start}; expected {end}", param="file")
        end = stop
    if end != size:
        raise FormatError(
            f"the tensors need {end} bytes; the file has {size} after its header", param="file"
        )


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
    )


def _refuse_dtype(name: str, dtype: str) -> NoReturn:
    raise UnsupportedDtypeError(
        f"{name} has dtype {dtype}; expected one of {', '.join(_ITEM_BYTES)}",
        param=f"tensors.{name}",
    )
