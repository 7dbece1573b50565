"""Whether a checkpoint's configuration describes a model that can be served, before its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
)
from transformers.utils.logging import disable_progress_bar

from server.engine.attention.inspection import INSPECTED, PAGED, MaskRule, inspected_attention
from server.engine.attention.paged_attention import paged_attention
from steering.errors import UnsupportedArchitectureError
from steering.layout import calls_attention_interface

from .quantisation import dequantise

_SERVED_LAYERS: Final = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
"""Kinds of layers, as configurations call them, that keep keys and values and see all of a span."""


def read_config(path: Path) -> Any:
    """The configuration of a causal language model that can attend through the engine.

    Where the weights are quantised it says that they are to be dequantised while they are read.

    Args:
        path: A folder with a `config.json`; nothing else is read.

    Raises:
        UnsupportedArchitectureError: It is of another kind.
        ModelLoadError: The weights are quantised in a way that is not read.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]
    AttentionInterface.register(PAGED, paged_attention)
    AttentionInterface.register(INSPECTED, inspected_attention)
    AttentionMaskInterface.register(INSPECTED, MaskRule)
    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    architecture: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    name = config.model_type if architecture is None else architecture.__name__
    text = config.get_text_config(decoder=True)
    _check_layers(name, text)
    if architecture is None or not calls_attention_interface(architecture, text.model_type):
        raise UnsupportedArchitectureError(
            f"{name} is not a causal language model that calls attention through transformers' "
            "attention interface, which batching and caching here depend on",
            param="model",
        )
    dequantise(config)
    return config


def _check_layers(name: str, config: Any) -> None:
    """Refuse layers that keep a state of their own, or choose among keys by an index."""
    kinds = set(getattr(config, "layer_types", None) or ())
    if other := sorted(str(kind) for kind in kinds - _SERVED_LAYERS):
        raise UnsupportedArchitectureError(
            f"{name} has layers of the kind {', '.join(map(repr, other))}; only attention over "
            "keys and values can be batched and cached here (docs/models.md says what others "
            "would take)",
            param="model",
        )
