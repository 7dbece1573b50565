"""Files of every format with seeded damage: read as they are, or refused in plain words."""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch

from steering.directions import Direction, DirectionKind
from steering.errors import SteeringError
from steering.formats import (
    UPLOAD_BOUNDS,
    dump_direction,
    load_npz,
    load_upload,
    tensors_from_json,
    tensors_to_json,
)
from steering.model_spec import ModelSpec
from steering.sites import Site

from .files import control_vector

INTERNALS = re.compile(
    r"0x[0-9a-f]{6}|Traceback|<class|object at|\b[A-Z]\w*(Error|Exception|Warning)\b|NoneType"
    r"|\bstruct\.|requires a buffer|invalid literal|codec can't"
)
"""What Python and libraries say of themselves."""

PLACE = {"kind": DirectionKind.VECTOR, "site": Site.RESID_POST, "layers": (1, 2)}
VECTORS = {f"vector.{i}": torch.tensor([3.0, 4.0]) * i for i in (1, 2)}
SPEC = ModelSpec("served", "llama", "f" * 64, num_layers=3, hidden_size=2, num_heads=1, head_dim=2)


def archive(*, packed: bool) -> bytes:
    stream = io.BytesIO()
    save = np.savez_compressed if packed else np.savez
    save(stream, **{name: tensor.numpy() for name, tensor in VECTORS.items()})  # type: ignore[arg-type]
    return stream.getvalue()


def read_json(data: bytes) -> None:
    tensors_from_json(json.loads(data), UPLOAD_BOUNDS)


def read_upload(data: bytes) -> None:
    load_upload(data, "v", model=SPEC)


def read_archive(data: bytes) -> None:
    load_npz(data, "v", **PLACE)  # type: ignore[arg-type]


NATIVE = Direction("v", tensors=VECTORS, **PLACE)  # type: ignore[arg-type]
FILES: dict[str, tuple[bytes, Callable[[bytes], None]]] = {
    "safetensors": (dump_direction(NATIVE), read_upload),
    "gguf": (
        control_vector({f"direction.{i}": np.array([3, 4], np.float32) * i for i in (1, 2)}),
        read_upload,
    ),
    "npz": (archive(packed=False), read_archive),
    "packed npz": (archive(packed=True), read_archive),
}


def damaged(data: bytes, source: random.Random) -> bytes:
    """One to four accidents: bytes and numbers changed, and pieces lost, doubled or moved."""
    result = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(result) + 1)
        size = source.choice([1, 2, 4, 8, 16, 64])
        match source.randrange(6):
            case 0:
                result[at : at + 1] = bytes([source.randrange(256)])
            case 1:
                number = source.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 2**20])
                result[at : at + 8] = number.to_bytes(8, "little")
            case 2:
                del result[at : at + size]
            case 3:
                result[at:at] = result[at : at + size]
            case 4:
                result[at:at] = source.randbytes(size)
            case 5:
                del result[source.randrange(len(result) + 1) :]
    return bytes(result)


def changed(value: Any, source: random.Random) -> Any:
    """A JSON value with some of its parts replaced by others."""
    if source.random() < 0.1:
        return source.choice(
            [None, True, 0, -1, 2**70, 1e308, "", "F64", "é\0", [], {}, [[]], [[1.0], 2.0], ["1"]]
        )
    if isinstance(value, dict):
        keys = {key: key if source.random() < 0.95 else key + "\0/" for key in value}
        return {keys[key]: changed(item, source) for key, item in value.items()}
    if isinstance(value, list):
        return [changed(item, source) for item in value]
    if isinstance(value, str):
        return damaged(value.encode(), source).decode("latin-1")
    return value


def refusal(read: Callable[[bytes], None], data: bytes) -> SteeringError | None:
    """What was wrong with a file, if anything."""
    try:
        read(data)
    except SteeringError as error:
        return error
    return None


def num_refused(read: Callable[[bytes], None], files: Iterable[bytes]) -> int:
    """How many files were refused, each in plain words."""
    found = 0
    for data in files:
        error = refusal(read, data)
        if error is not None:
            found += 1
            text = str(error)
            assert not INTERNALS.search(text), (text, data)
            assert text.isprintable(), (text, data)
            assert error.param is not None, (text, data)
            assert len(text) < 500, (text, data)
    return found


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_read_or_refused_in_plain_words(name: str) -> None:
    data, read = FILES[name]
    assert refusal(read, data) is None
    source = random.Random(name)
    assert num_refused(read, (damaged(data, source) for _ in range(1500))) > 1000


def test_changed_documents_are_read_or_refused_in_plain_words() -> None:
    document: dict[str, Any] = {**tensors_to_json(VECTORS), "reference": [[1.0, 2.0], [3.0, 4.0]]}
    source = random.Random("json")
    files = (json.dumps(changed(document, source)).encode() for _ in range(1500))
    assert num_refused(read_json, files) > 1000
