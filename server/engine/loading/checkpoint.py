"""A checkpoint's folder, before anything in it is trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from server.engine.errors import EngineError

__all__ = ["check_checkpoint"]

_METADATA: Final = ("config.json", "generation_config.json", "tokenizer_config.json")


def check_checkpoint(path: Path) -> None:
    """Refuse a folder that is no checkpoint, would need unpickling, or names code to run.

    Raises:
        EngineError: With `param` "model".
    """
    if not (path / "config.json").is_file():
        raise EngineError(
            f"model is {str(path)!r}, which holds no config.json; expected the folder of a "
            "checkpoint in Hugging Face format",
            param="model",
        )
    if not any(path.glob("*.safetensors")):
        raise EngineError(
            f"model {str(path)!r} has no *.safetensors file; pickled weights are not read, convert "
            "them with `save_pretrained` first",
            param="model",
        )
    for name in _METADATA:
        for key in _keys(_read_json(path / name)):
            if key == "auto_map":
                raise EngineError(
                    f"{name} of {str(path)!r} has 'auto_map', which names code to run; only "
                    "architectures that are part of transformers are loaded",
                    param="model",
                )


def _read_json(path: Path) -> Any:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EngineError(f"{str(path)!r} is not JSON: {error}", param="model") from None


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from _keys(item)
