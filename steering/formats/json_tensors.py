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
from steering.fields import check_keys, int_list, mapping, number, require
from steering.tensor_bytes import tensor_bytes

from .bounds import FileBounds, check_shape, check_tensor_name

__all__ = ["tensors_from_json", "tensors_to_json"]

_DTYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_DTYPE_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}


def tensors_from_json(document: Any, bounds: FileBounds | None = None) -> dict[str, Tensor]:
    """Read `{name: {"dtype", "shape", "data": base64} | [..] | [[..], ..]}`.

    Nested lists become F32. Bytes are little-endian, rows first, as in safetensors. `bounds` are
    those of a stranger's document; None for one of ours.

    Raises:
        SteeringError: A subclass, with `param` like `tensors.vector.shape`.
    """
    document = mapping(document, "tensors")
    if not document:
        raise InvalidFieldError("tensors is empty; expected a tensor", param="tensors")
    if bounds is not None:
        bounds.check_tensor_count(len(document), noun="object", param="tensors")
    tensors = {}
    for name, value in document.items():
        check_tensor_name(str(name))
        tensors[str(name)] = _read(f"tensors.{name}", value)
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
        document[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data": base64.b64encode(tensor_bytes(tensor)).decode("ascii"),
        }
    return document


def _read(param: str, value: Any) -> Tensor:
    if isinstance(value, Mapping):
        try:
            tensor = _from_base64(value)
        except SteeringError as error:
            raise error.under(param) from None
    else:
        tensor = _from_lists(param, value)
    if not bool(torch.isfinite(tensor).all()):
        raise NonFiniteError(
            f"{param} holds NaN, infinity or a number beyond its dtype; expected finite numbers",
            param=param,
        )
    return tensor


def _from_base64(value: Mapping[str, Any]) -> Tensor:
    check_keys(value, {"dtype", "shape", "data"}, noun="a tensor")
    dtype, shape, data = (require(value, key, noun="tensor") for key in ("dtype", "shape", "data"))
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise UnsupportedDtypeError(
            f"dtype is {str(dtype)[:20]!r}; expected one of {', '.join(_DTYPES)}", param="dtype"
        )
    shape = int_list(shape, "shape")
    check_shape("the tensor", shape, param="shape")
    raw = _bytes(data)
    size = math.prod(shape) * _DTYPES[dtype].itemsize
    if len(raw) != size:
        raise ShapeMismatchError(
            f"data holds {len(raw)} bytes; dtype {dtype} and shape {list(shape)} need {size}",
            param="data",
        )
    return torch.frombuffer(bytearray(raw), dtype=_DTYPES[dtype]).reshape(shape)


def _bytes(data: Any) -> bytes:
    if not isinstance(data, str):
        raise InvalidFieldError("data is not a base64 string", param="data")
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        raise FormatError("data is not valid base64", param="data") from None


def _from_lists(param: str, value: Any) -> Tensor:
    if not isinstance(value, list | tuple) or not value:
        raise InvalidFieldError(
            f"{param} is neither a non-empty list of numbers, nor a list of such lists, nor an "
            "object with dtype, shape and data",
            param=param,
        )
    is_matrix = isinstance(value[0], list | tuple)
    rows = value if is_matrix else [value]
    if not all(isinstance(row, list | tuple) and len(row) == len(rows[0]) for row in rows):
        raise ShapeMismatchError(
            f"{param} has rows of different lengths; expected a matrix", param=param
        )
    matrix = torch.tensor([[number(item, param) for item in row] for row in rows])
    tensor = matrix if is_matrix else matrix[0]
    check_shape(param, tuple(tensor.shape), param=param)
    return tensor
