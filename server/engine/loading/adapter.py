"""A LoRA adapter's folder, merged into the model's weights when it is loaded.

From then on it is a model like any other: its fingerprint is that of the merged weights.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, Final

import structlog
from torch import nn

from server.engine.errors import ModelLoadError
from steering.weights import CheckpointError
from steering.weights.checkpoint_files import Shard

from .checkpoint import reading

_log = structlog.get_logger(__name__)

_CONFIG: Final = "adapter_config.json"
_WEIGHTS: Final = "adapter_model.safetensors"
_PICKLED: Final = "adapter_model.bin"
_LORA: Final = "LORA"
_INVOKED: Final = "alora_invocation_tokens"
_INSTALL: Final = "pip install 'coxswain[adapters]'"


def check_adapter(folder: Path) -> None:
    """Refuse what is no LoRA adapter in safetensors, or cannot be merged; reads its settings alone.

    Raises:
        ModelLoadError: With `param` "adapter".
    """
    if not (folder / _CONFIG).is_file():
        state = f"holds no {_CONFIG}" if folder.is_dir() else "is no folder"
        raise _refusal(folder, f"{state}; expected the folder of a LoRA adapter, as peft saves it")
    if not (folder / _WEIGHTS).is_file():
        remedy = "save it again with peft" if (folder / _PICKLED).is_file() else "copy it there"
        raise _refusal(folder, f"has no {_WEIGHTS}; pickled weights are not read, {remedy}")
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _refusal(folder, f"has an {_CONFIG} that is not JSON: {error}") from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != _LORA:
        raise _refusal(folder, f"is of the kind {kind!r}; expected {_LORA!r}, which can be merged")
    if config.get(_INVOKED) is not None:
        raise _refusal(folder, f"acts from {_INVOKED} on only, and so cannot be merged")
    _peft(folder)


def merge_adapter(model: nn.Module, folder: Path) -> Any:
    """Merge an adapter into a model, in the model's data type; changes and returns the model.

    Raises:
        ModelLoadError: peft is not installed, or the adapter is not one of this model, or some of
            its tensors have no place there.
    """
    peft = _peft(folder)
    try:
        held = set(Shard(folder / _WEIGHTS).names)
    except CheckpointError as error:
        raise _refusal(folder, str(error)) from None
    with reading(str(folder), "adapter"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers
        adapted = peft.PeftModel.from_pretrained(model, folder, is_trainable=False)
        placed = set(peft.get_peft_model_state_dict(adapted))
        if strays := sorted(held ^ placed):
            state = "has no place for" if strays[0] in held else "expects, and the file lacks,"
            raise _refusal(
                folder, f"is not one of this model, which {state} {', '.join(strays[:3])}"
            )
        merged = adapted.merge_and_unload(safe_merge=True)
    _log.info("adapter_merged", adapter=str(folder), num_tensors=len(held))
    return merged.eval().requires_grad_(False)


def _peft(folder: Path) -> Any:
    try:
        import peft
    except ImportError as error:
        raise _refusal(folder, f"needs peft, which is not here ({error}); {_INSTALL}") from None
    return peft


def _refusal(folder: Path, fault: str) -> ModelLoadError:
    return ModelLoadError(f"adapter {str(folder)!r} {fault}", param="adapter")
