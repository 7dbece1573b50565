"""Tiny randomly initialised models of real architectures, for tests without downloads."""

from .checkpoint import save_tiny, tiny_tokenizer
from .tiny import FAMILIES, MOE_FAMILIES, REFUSED_FAMILIES, VOCAB_SIZE, tiny_config, tiny_model

__all__ = [
    "FAMILIES",
    "MOE_FAMILIES",
    "REFUSED_FAMILIES",
    "VOCAB_SIZE",
    "save_tiny",
    "tiny_config",
    "tiny_model",
    "tiny_tokenizer",
]
