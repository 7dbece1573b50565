"""Files that hold directions: read within bounds, without pickle, and written reproducibly."""

from __future__ import annotations

from .bounds import UPLOAD_BOUNDS, FileBounds
from .gguf_control_vector import dump_control_vector, load_control_vector
from .json_tensors import NUMBERS_SCHEMA, TENSORS_SCHEMA, tensors_from_json, tensors_to_json
from .native import dump_direction, load_direction
from .npz import load_npz
from .repeng import from_repeng
from .safetensors_file import TensorPiece, read_safetensors, safetensors_parts, write_safetensors
from .upload import load_upload

__all__ = [
    "NUMBERS_SCHEMA",
    "TENSORS_SCHEMA",
    "UPLOAD_BOUNDS",
    "FileBounds",
    "TensorPiece",
    "dump_control_vector",
    "dump_direction",
    "from_repeng",
    "load_control_vector",
    "load_direction",
    "load_npz",
    "load_upload",
    "read_safetensors",
    "safetensors_parts",
    "tensors_from_json",
    "tensors_to_json",
    "write_safetensors",
]
