"""The process that parses a caller's GGUF file, within limits on memory, time and files.

Run as a script, never imported by the server: it takes its limits before it reads a byte and it
imports nothing of ours, so it starts without torch. The file is its standard input. On standard
output it answers with a safetensors file (exit status 0) or a JSON error (exit status 1); the
parent trusts neither and checks both.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from typing import Any, NoReturn

__all__ = ["main"]

_DIRECTION = re.compile(r"direction\.(0|[1-9][0-9]{0,4})")
_DTYPES = {"F32": "float32", "F16": "float16"}
_MAX_TEXT = 200


class _Refused(Exception):
    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


def main(memory_bytes: int, cpu_seconds: int, max_tensors: int, max_layer: int) -> int:
    """Convert standard input; returns the exit status."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        answer = _convert(sys.stdin.buffer, max_tensors, max_layer)
    except _Refused as error:
        sys.stdout.write(json.dumps({"error": error.error, "message": str(error)}))
        return 1
    except Exception as error:  # the library raises whatever a broken file runs it into
        message = f"not a valid GGUF file: {type(error).__name__}: {str(error)[:_MAX_TEXT]}"
        sys.stdout.write(json.dumps({"error": "FormatError", "message": message}))
        return 1
    sys.stdout.buffer.write(answer)
    return 0


def _convert(stream: Any, max_tensors: int, max_layer: int) -> bytes:
    try:
        import gguf
    except ImportError:
        _refuse("FormatError", "reading GGUF needs the package gguf; install coxswain[server]")
    from safetensors.numpy import save

    reader = gguf.GGUFReader(stream)
    if not 0 < len(reader.tensors) <= max_tensors:
        _refuse(
            "FormatError",
            f"the GGUF file holds {len(reader.tensors)} tensors; expected 1 to {max_tensors}",
        )
    tensors = {}
    for tensor in reader.tensors:
        layer = _layer(tensor.name, max_layer)
        tensors[f"vector.{layer}"] = _vector(tensor)
    architecture = _text(reader, "general.architecture")
    return save(
        tensors,
        {
            "architecture": architecture,
            "model_hint": _text(reader, f"{architecture}.model_hint"),
            "method": _text(reader, f"{architecture}.method"),
        },
    )


def _layer(name: str, max_layer: int) -> int:
    match = _DIRECTION.fullmatch(name)
    if match is None:
        _refuse(
            "FormatError",
            f"the file has a tensor {name[:80]!r}; a control vector has only direction.<layer>",
        )
    layer = int(match[1])
    if layer > max_layer:
        _refuse("LayerOutOfRangeError", f"{name} names a layer above {max_layer}")
    return layer


def _vector(tensor: Any) -> Any:
    dtype = tensor.tensor_type.name
    if dtype not in _DTYPES:
        _refuse(
            "UnsupportedDtypeError",
            f"{tensor.name} has dtype {dtype}; expected one of {', '.join(_DTYPES)}",
        )
    if tensor.data.ndim != 1 or tensor.data.size == 0 or tensor.data.size != tensor.n_elements:
        _refuse(
            "ShapeMismatchError",
            f"{tensor.name} has shape {list(tensor.shape)[:8]}; expected one dimension that the "
            "file holds in full",
        )
    return tensor.data.astype(_DTYPES[dtype])


def _text(reader: Any, key: str) -> str:
    field = reader.get_field(key)
    value = None if field is None else field.contents()
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _refuse(error: str, message: str) -> NoReturn:
    raise _Refused(error, message)


if __name__ == "__main__":
    sys.exit(main(*(int(argument) for argument in sys.argv[1:])))
