"""Safetensors and GGUF files written field by field, so that any field can be wrong."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

F32, F16, Q4_0, BF16, I64 = 0, 1, 2, 30, 27
UINT32, STRING, ARRAY = 4, 8, 9


def safetensors(header: Any, body: bytes = b"", *, length: int | None = None) -> bytes:
    """A file with this header, as given if it is bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(shape: list[Any], *, dtype: str = "F32", start: int = 0, size: int | None = None) -> Any:
    """A header entry whose offsets fit its shape unless `size` says otherwise."""
    width = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8, "F8_E4M3": 1}[dtype]
    occupied = int(np.prod(shape)) * width if size is None else size
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, start + occupied]}


def string(text: str | bytes) -> bytes:
    """A GGUF string."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def text_field(key: str, value: str) -> bytes:
    """A GGUF key with a string value."""
    return string(key) + struct.pack("<I", STRING) + string(value)


def tensor_info(
    name: str, dims: list[int], *, dtype: int = F32, offset: int = 0, num_dims: int | None = None
) -> bytes:
    """The description of a GGUF tensor."""
    head = struct.pack("<I", len(dims) if num_dims is None else num_dims)
    return string(name) + head + struct.pack(f"<{len(dims)}QIQ", *dims, dtype, offset)


def gguf(
    infos: list[bytes],
    body: bytes,
    *,
    fields: list[bytes] | None = None,
    magic: bytes = b"GGUF",
    version: int = 3,
    num_tensors: int | None = None,
    num_fields: int | None = None,
) -> bytes:
    """A GGUF file of these parts; counts are right unless given."""
    fields = [text_field("general.architecture", "controlvector")] if fields is None else fields
    counts = (
        len(infos) if num_tensors is None else num_tensors,
        len(fields) if num_fields is None else num_fields,
    )
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(fields) + b"".join(infos)
    return head + bytes(-len(head) % 32) + body


def control_vector(
    vectors: dict[str, np.ndarray],
    *,
    architecture: str = "controlvector",
    model_hint: str = "llama",
    layer_count: int | None = None,
) -> bytes:
    """A well-formed control vector of float32 or float16 arrays; a count below 0 is left out."""
    infos, body = [], b""
    for name, vector in vectors.items():
        dtype = {"float32": F32, "float16": F16}[vector.dtype.name]
        infos.append(tensor_info(name, [vector.size], dtype=dtype, offset=len(body)))
        body += vector.tobytes()
        body += bytes(-len(body) % 32)
    fields = [
        text_field("general.architecture", architecture),
        text_field(f"{architecture}.model_hint", model_hint),
    ]
    count = len(vectors) if layer_count is None else layer_count
    if count >= 0:
        fields.append(string(f"{architecture}.layer_count") + struct.pack("<II", UINT32, count))
    return gguf(infos, body, fields=fields)
