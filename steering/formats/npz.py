"""numpy archives of a direction's tensors, read without pickle and within bounds."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import IO, Any, Final

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from steering.directions import Direction, DirectionKind
from steering.errors import FormatError, SteeringError, UnsafeFormatError, UnsupportedDtypeError
from steering.sites import Site

from .bounds import UPLOAD_BOUNDS, check_shape, check_tensor_name

_SUFFIX: Final = ".npy"
_DTYPES: Final = (np.dtype("<f4"), np.dtype("<f2"))
# What zipfile raises on damaged archives, found by damaging them.
_BROKEN: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)
_COMPRESSIONS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def load_npz(
    data: bytes,
    name: str,
    *,
    kind: DirectionKind,
    site: Site,
    layers: Sequence[int],
    provenance: Mapping[str, Any] | None = None,
    max_bytes: int = 64 * 2**20,
) -> Direction:
    """Read an archive of numpy.savez or savez_compressed as a direction.

    Arrays are named as `Direction` names tensors and are float32 or float16. What unpacks to
    more than `max_bytes` is refused while it unpacks, whatever the archive claims. For local
    use: the server does not take archives.

    Raises:
        UnsafeFormatError: An array holds Python objects.
        FormatError: Not such an archive, or larger than the bounds.
        SteeringError: The tensors do not fit the kind; see `Direction`.
    """
    try:
        tensors = _read(data, max_bytes)
    except SteeringError:
        raise
    except _BROKEN:
        raise FormatError(
            "not a valid npz file: expected a sound archive as numpy.savez writes it", param="file"
        ) from None
    return Direction(
        name=name,
        kind=kind,
        site=site,
        layers=tuple(layers),
        tensors=tensors,
        provenance={"source_format": "npz", **(provenance or {})},
    )


def _read(data: bytes, max_bytes: int) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    left = max_bytes
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if not members:
            raise FormatError("the npz file holds no array", param="file")
        UPLOAD_BOUNDS.check_tensor_count(len(members), noun="npz file")
        for member in members:
            name = member.filename.removesuffix(_SUFFIX)
            check_tensor_name(name)
            if name in tensors or name == member.filename:
                raise FormatError(
                    f"the archive has {name!r} twice or without {_SUFFIX}; expected one array "
                    "for each name",
                    param="file",
                )
            if member.compress_type not in _COMPRESSIONS:
                raise FormatError(f"{name} is packed by an unknown method", param="file")
            with archive.open(member) as stream:
                tensors[name] = _read_array(name, stream, left)
            left -= tensors[name].nbytes
    return tensors


def _read_array(name: str, stream: IO[bytes], limit: int) -> Tensor:
    try:
        major, _ = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
        shape, is_column_major, dtype = read_header(stream)
    except ValueError:
        raise FormatError(f"{name} is not a numpy array", param="file") from None
    if dtype.hasobject:
        raise UnsafeFormatError(
            f"{name} holds Python objects, which need unpickling; expected float32 or float16",
            param="file",
        )
    if dtype not in _DTYPES:
        raise UnsupportedDtypeError(
            f"{name} has dtype {dtype!s:.20}; expected float32 or float16", param=f"tensors.{name}"
        )
    check_shape(name, shape, param=f"tensors.{name}")
    size = math.prod(shape) * dtype.itemsize
    if size > limit:
        raise FormatError(
            f"{name} needs {size} bytes; expected at most {limit} more in this archive",
            param="file",
        )
    raw = stream.read(size + 1)
    if len(raw) != size:
        raise FormatError(f"{name} does not hold the {size} bytes its shape needs", param="file")
    flat = torch.from_numpy(np.frombuffer(bytearray(raw), dtype=dtype))
    return flat.reshape(shape[::-1]).T.contiguous() if is_column_major else flat.reshape(shape)
