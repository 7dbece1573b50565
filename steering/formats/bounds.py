"""How much a stranger's file may hold, checked before anything parses it.

A file of ours is verified by its hash and has no bounds: whatever is written can be read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from steering.errors import FormatError, InvalidFieldError, ShapeMismatchError

_TENSOR_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@dataclass(frozen=True, slots=True)
class FileBounds:
    """Bounds of a file whose sender is not trusted; whoever receives it bounds its size.

    Attributes:
        max_tensors: Most tensors.
        max_header_bytes: Most bytes before the tensors' data.
        max_metadata_bytes: Most bytes of the texts that describe the file.
    """

    max_tensors: int = 512
    max_header_bytes: int = 2**20
    max_metadata_bytes: int = 64 * 2**10

    def check_tensor_count(self, count: int, *, noun: str, param: str = "file") -> None:
        """Check that a file holds no more tensors than allowed.

        Raises:
            FormatError: It does.
        """
        if count > self.max_tensors:
            raise FormatError(
                f"the {noun} holds {count} tensors; expected 1 to {self.max_tensors}",
                param=param,
            )


UPLOAD_BOUNDS: Final = FileBounds()
"""Bounds of the files that callers send."""


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
