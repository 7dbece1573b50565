"""Text to tokens and back: chats, regions, stop strings."""

from __future__ import annotations

from .detokenizer import Detokenizer
from .regions import RegionTracker
from .tokenizer import THINKING_MARKERS, EncodedChat, Tokenizer

__all__ = ["THINKING_MARKERS", "Detokenizer", "EncodedChat", "RegionTracker", "Tokenizer"]
