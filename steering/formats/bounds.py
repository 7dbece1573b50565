"""How much a file may hold before anything parses it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from steering.errors import FormatError, InvalidFieldError, ShapeMismatchError

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_HEADER_BYTES",
    "MAX_LAYER",
    "MAX_METADATA_BYTES",
    "MAX_TENSORS",
    "check_file_size",
    "check_shape",
    "check_tensor_count",
    "check_tensor_name",
]

MAX_FILE_BYTES: Final = 64 * 2**20
MAX_HEADER_BYTES: Final = 2**20
MAX_METADATA_BYTES: Final = 64 * 2**10
MAX_TENSORS: Final = 512
MAX_LAYER: Final = 4095
"""Largest layer a file may name; whether the model has it is decided when it is used."""

_TENSOR_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def check_file_size(data: bytes, *, noun: str) -> None:
    """Check that `data` is not empty and within `MAX_FILE_BYTES`.

    Raises:
        FormatError: It is not.
    """
    if not 0 < len(data) <= MAX_FILE_BYTES:
        raise FormatError(
            f"the {noun} file has {len(data)} bytes; expected 1 to {MAX_FILE_BYTES}", param="file"
        )


def check_tensor_count(count: int, *, noun: str) -> None:
    """Check that a file holds at least one tensor and at most `MAX_TENSORS`.

    Raises:
        FormatError: It does not.
    """
    if not 0 < count <= MAX_TENSORS:
        raise FormatError(
            f"the {noun} file holds {count} tensors; expected 1 to {MAX_TENSORS}", param="file"
        )


def check_tensor_name(name: str) -> None:
    """Check that `name` can be a tensor's name; names are labels, never paths.

    Raises:
        InvalidFieldError: It cannot.
    """
    if _TENSOR_NAME.fullmatch(name) is None:
        raise InvalidFieldError(
            f"a tensor is called {name[:80]!r}; expected 1 to 128 of A-Z a-z 0-9 _ . : -",
            param="tensors",
        )


def check_shape(name: str, shape: Sequence[int], *, param: str) -> None:
    """Check that a tensor is a vector or a matrix with no empty dimension.

    Raises:
        ShapeMismatchError: It is not.
    """
    if len(shape) not in (1, 2) or min(shape) < 1:
        raise ShapeMismatchError(
            f"{name} has shape {list(shape)[:8]}; expected one or two dimensions, each at least 1",
            param=param,
        )
