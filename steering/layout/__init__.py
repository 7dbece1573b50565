"""Where a model family computes what steering reads and edits."""

from .attention_reader import AttentionReader
from .detection import detect_layout
from .layout import LayerModules, Layout, WriteMatrix

__all__ = ["AttentionReader", "LayerModules", "Layout", "WriteMatrix", "detect_layout"]
