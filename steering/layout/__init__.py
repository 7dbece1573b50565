"""Where a model family computes what steering reads and edits."""

from .attention_reader import AttentionReader
from .detection import calls_attention_interface, detect_layout
from .layout import LayerModules, Layout, WriteMatrix

__all__ = [
    "AttentionReader",
    "LayerModules",
    "Layout",
    "WriteMatrix",
    "calls_attention_interface",
    "detect_layout",
]
