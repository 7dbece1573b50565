"""Models in llama.cpp's file format."""

from __future__ import annotations

from .convert import convert_gguf, write_gguf_config
from .file import GgufFile, read_gguf

__all__ = ["GgufFile", "convert_gguf", "read_gguf", "write_gguf_config"]
