"""Tensors written as JSON: base64 of their bytes, or nested lists of numbers."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from steering.errors import (
    FormatError,
    InvalidFieldError,
    NonFiniteError,
    ShapeMismatchError,
    SteeringError,
    UnsupportedDtypeError,
)
from steering.fields import check_keys, int_list, number, require

from .bounds import MAX_FILE_BYTES, check_shape, check_tensor_count, check_tensor_name

__all__ = ["tensors_from_json", "tensors_to_json"]

_DTYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_DTYPE_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}


def tensors_from_json(document: Any) -> dict[str, Tensor]:
    """Read `{name: {"dtype", "shape", "data": base64} | [..] | [[..], ..]}`.

    Nested lists become F32. Bytes are little-endian, rows first, as in safetensors.

    Raises:
        SteeringError: A subclass, with `param` like `tensors.vector.shape`.
    """
    if not isinstance(document, Mapping):
        raise InvalidFieldError(
            f"tensors is of type {type(document).__name__}; expected an object by tensor name",
            param="tensors",
        )
    check_tensor_count(len(document), noun="JSON")
    tensors = {}
    for name, value in document.items():
        check_tensor_name(str(name))
        read = _from_base64 if isinstance(value, Mapping) else _from_lists
        try:
            tensors[str(name)] = read(str(name), value)
        except SteeringError as error:
            raise error.under(f"tensors.{name}") from None
    return tensors


def tensors_to_json(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """The base64 document that `tensors_from_json` reads, byte-exact.

    Raises:
        UnsupportedDtypeError: A tensor is not F32, F16 or BF16.
    """
    document = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPE_NAMES:
            raise UnsupportedDtypeError(
                f"{name} has dtype {tensor.dtype}; expected one of {', '.join(_DTYPES)}",
                param=f"tensors.{name}",
            )
        raw = tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        document[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data": base64.b64encode(raw).decode("ascii"),
        }
    return document


def _from_base64(name: str, value: Mapping[str, Any]) -> Tensor:
    check_keys(value, {"dtype", "shape", "data"}, noun=f"tensor {name}")
    dtype, shape, data = (require(value, key, noun=name) for key in ("dtype", "shape", "data"))
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise UnsupportedDtypeError(
            f"dtype of {name} is {str(dtype)[:20]!r}; expected one of {', '.join(_DTYPES)}",
            param="dtype",
        )
    shape = int_list(shape, "shape")
    check_shape(name, shape, param="shape")
    raw = _bytes_of(name, data)
    size = math.prod(shape) * _DTYPES[dtype].itemsize
    if len(raw) != size:
        raise ShapeMismatchError(
            f"data of {name} holds {len(raw)} bytes; dtype {dtype} and shape {list(shape)[:2]} "
            f"need {size}",
            param="data",
        )
    tensor = torch.frombuffer(bytearray(raw), dtype=_DTYPES[dtype]).reshape(shape)
    return _finite(name, tensor)


def _bytes_of(name: str, data: Any) -> bytes:
    if not isinstance(data, str) or len(data) > MAX_FILE_BYTES * 4 // 3 + 4:
        raise InvalidFieldError(
            f"data of {name} is not a base64 string of at most {MAX_FILE_BYTES} bytes",
            param="data",
        )
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        raise FormatError(f"data of {name} is not valid base64", param="data") from None


def _from_lists(name: str, value: Any) -> Tensor:
    if not isinstance(value, list | tuple) or not value:
        raise InvalidFieldError(
            f"{name} is neither a non-empty list of numbers, nor a list of such lists, nor an "
            "object with dtype, shape and data"
        )
    is_matrix = isinstance(value[0], list | tuple)
    rows = value if is_matrix else [value]
    if not all(isinstance(row, list | tuple) and len(row) == len(rows[0]) for row in rows):
        raise ShapeMismatchError(f"{name} has rows of different lengths; expected a matrix")
    matrix = torch.tensor([[number(item, name) for item in row] for row in rows])
    return _finite(name, matrix if is_matrix else matrix[0])


def _finite(name: str, tensor: Tensor) -> Tensor:
    check_shape(name, tuple(tensor.shape), param="shape")
    if not bool(torch.isfinite(tensor).all()):
        raise NonFiniteError(
            f"{name} holds NaN, infinity or a number beyond its dtype; expected finite numbers"
        )
    return tensor
