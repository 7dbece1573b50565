"""A checkpoint's folder, before anything in it is trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from server.engine.errors import ModelLoadError
from steering.weights import CheckpointFiles

__all__ = ["check_checkpoint"]

_METADATA: Final = ("config.json", "generation_config.json", "tokenizer_config.json")
_REDIRECTIONS: Final = {
    "auto_map": "names code to run; only architectures that are part of transformers are loaded",
    "transformers_weights": "names other files with weights; save the checkpoint again",
}
_ADAPTERS: Final = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_DISTRIBUTED: Final = "shard-*-model-*.safetensors"


def check_checkpoint(path: Path) -> CheckpointFiles:
    """Refuse a folder that is no checkpoint, would need unpickling, or names code to run.

    Reads what is small: the configuration and the heads of the weights' files.

    Returns:
        Which tensors it holds.

    Raises:
        ModelLoadError: With `param` "model".
        CheckpointError: The weights are quantised, or a file of theirs is damaged or missing.
    """
    if not path.is_dir():
        state = "is not a folder" if path.exists() else "does not exist"
        raise ModelLoadError(
            f"model is {str(path)!r}, which {state}; expected the folder of a checkpoint in "
            "Hugging Face format",
            param="model",
        )
    if not (path / "config.json").is_file():
        raise ModelLoadError(
            f"model is {str(path)!r}, which holds no config.json; expected the folder of a "
            "checkpoint in Hugging Face format",
            param="model",
        )
    _check_metadata(path)
    _check_files(path)
    return CheckpointFiles(path)


def _check_metadata(path: Path) -> None:
    for name in _METADATA:
        document = _read_json(path / name)
        if not isinstance(document, dict):
            raise ModelLoadError(f"{str(path / name)!r} is not a JSON object", param="model")
        for key in _keys(document):
            if key in _REDIRECTIONS:
                raise ModelLoadError(
                    f"{name} of {str(path)!r} has {key!r}, which {_REDIRECTIONS[key]}",
                    param="model",
                )


def _check_files(path: Path) -> None:
    """Refuse files that change what the weights are, or that are read in place of them."""
    for name in _ADAPTERS:
        if (path / name).exists():
            raise ModelLoadError(
                f"model {str(path)!r} holds {name}: an adapter beside the weights, which would not "
                "be applied. Merge it into them (`merge_and_unload` of peft), or move it away",
                param="model",
            )
    if any(path.glob(_DISTRIBUTED)):
        raise ModelLoadError(
            f"model {str(path)!r} is a distributed checkpoint ({_DISTRIBUTED}); write it with "
            "`save_pretrained` first",
            param="model",
        )
    if not any((path / f"model.safetensors{end}").is_file() for end in ("", ".index.json")):
        raise ModelLoadError(
            f"model {str(path)!r} has neither model.safetensors nor model.safetensors.index.json; "
            "pickled and other weights are not read, convert them with `save_pretrained` first",
            param="model",
        )


def _read_json(path: Path) -> Any:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"{str(path)!r} is not JSON: {error}", param="model") from None


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from _keys(item)
