"""Text to tokens and back: chats, regions, thoughts, stop strings."""

from __future__ import annotations

from .detokenizer import Detokenizer
from .regions import RegionTracker
from .thought_splitter import ThoughtSplitter
from .tokenizer import EncodedChat, Tokenizer

__all__ = [
    "Detokenizer",
    "EncodedChat",
    "RegionTracker",
    "ThoughtSplitter",
    "Tokenizer",
]
