"""Tensors written as JSON: base64 of their bytes, or nested lists of numbers."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

import torch
from pydantic import BeforeValidator, Field, WithJsonSchema
from torch import Tensor

from steering.documents import Document, Integer, listed, read_numbers, refused
from steering.errors import (
    FormatError,
    InvalidFieldError,
    NonFiniteError,
    ShapeMismatchError,
    SteeringError,
    UnsupportedDtypeError,
    short_repr,
)
from steering.tensor_bytes import tensor_bytes

from .bounds import FileBounds, check_shape, check_tensor_name

_DTYPES: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_DTYPE_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}
# As numpy and torch spell them, too.
_DTYPES_READ: Final = _DTYPES | {str(dtype).removeprefix("torch."): dtype for dtype in _DTYPE_NAMES}
_VECTOR: Final = {"type": "array", "items": {"type": "number"}, "minItems": 1}

NUMBERS_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [_VECTOR, {"type": "array", "items": _VECTOR, "minItems": 1}]
}
"""JSON schema of a tensor as nested lists: of one or two dimensions."""


def _dtype(value: Any) -> Any:
    if not isinstance(value, str) or value not in _DTYPES_READ:
        raise refused(
            f"is {str(value)[:20]!r}; expected one of {', '.join(_DTYPES)}",
            UnsupportedDtypeError.code,
        )
    return value


def _base64(value: Any) -> Any:
    if not isinstance(value, str):
        raise refused("is not a base64 string")
    return value


class TensorBytes(Document):
    """A tensor as the base64 of its bytes, little-endian, rows first, as in safetensors."""

    noun: ClassVar[str] = "a tensor"
    subject: ClassVar[str] = "tensor"

    dtype: Annotated[
        str,
        BeforeValidator(_dtype),
        WithJsonSchema({"type": "string", "enum": list(_DTYPES_READ)}),
    ] = Field(description="Of its numbers, as safetensors or as numpy and torch say it.")
    shape: Annotated[tuple[Integer, ...], BeforeValidator(listed)] = Field(
        description="One or two dimensions, each at least 1.",
        json_schema_extra={"minItems": 1, "maxItems": 2},
    )
    data: Annotated[str, BeforeValidator(_base64)] = Field(
        description="Base64 of its bytes.", json_schema_extra={"contentEncoding": "base64"}
    )


TENSORS_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {"anyOf": [*NUMBERS_SCHEMA["anyOf"], TensorBytes.model_json_schema()]},
}
"""JSON schema of what `tensors_from_json` reads."""


def tensors_from_json(document: Any, bounds: FileBounds | None = None) -> dict[str, Tensor]:
    """Read `{name: {"dtype", "shape", "data": base64} | [..] | [[..], ..]}`.

    Nested lists become F32. Bytes are little-endian, rows first, as in safetensors. `bounds` are
    those of a stranger's document; None for one of ours.

    Raises:
        SteeringError: A subclass, with `param` like `tensors.vector.shape`.
    """
    if not isinstance(document, Mapping):
        raise InvalidFieldError(
            f"tensors is {short_repr(document)}; expected an object", param="tensors"
        )
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
    asked = TensorBytes.from_dict(value)
    check_shape("the tensor", asked.shape, param="shape")
    raw, dtype = _bytes(asked.data), _DTYPES_READ[asked.dtype]
    size = math.prod(asked.shape) * dtype.itemsize
    if len(raw) != size:
        raise ShapeMismatchError(
            f"data holds {len(raw)} bytes; dtype {asked.dtype} and shape {list(asked.shape)} "
            f"need {size}",
            param="data",
        )
    return torch.frombuffer(bytearray(raw), dtype=dtype).reshape(asked.shape)


def _bytes(data: str) -> bytes:
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
    matrix = torch.tensor([read_numbers(row, param) for row in rows])
    tensor = matrix if is_matrix else matrix[0]
    check_shape(param, tuple(tensor.shape), param=param)
    return tensor
