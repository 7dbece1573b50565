"""The files of a checkpoint in Hugging Face format: which shard holds which tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from .errors import CheckpointError
from .shard import FLOAT_DTYPES, Shard

__all__ = ["INDEX_FILE", "CheckpointFiles"]

_SINGLE_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"
"""Name of the file that says which shard holds which tensor."""


class CheckpointFiles:
    """Reads a checkpoint without loading it; changes nothing.

    Args:
        folder: Holds `model.safetensors`, or shards with an index, and `config.json`.

    Raises:
        CheckpointError: It does not, or its weights are quantised.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = _read_json(folder / "config.json")
        if method := _quantisation(self.config):
            raise CheckpointError(
                f"the checkpoint is quantised ({method}); expected weights in floating point. Give "
                "the original; for steered weights bake that and quantise the result",
                param="model",
            )
        self.shards = {name: Shard(folder / name) for name in self._shard_files()}
        self._owner: dict[str, Shard] = {}
        for shard in self.shards.values():
            for name in shard.names:
                if (other := self._owner.setdefault(name, shard)) is not shard:
                    raise CheckpointError(
                        f"{name} is in both {other.path.name} and {shard.path.name}; expected each "
                        "tensor once",
                        param="model",
                    )

    def _shard_files(self) -> list[str]:
        if not self.is_sharded:
            return [_SINGLE_FILE]
        places = _read_json(self.folder / INDEX_FILE).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(at, str) for at in places.values()):
            raise CheckpointError(
                f"{INDEX_FILE} has no 'weight_map' from tensors to files", param="model"
            )
        files = sorted(set(places.values()))
        outside = [name for name in files if Path(name).name != name]
        if outside:
            raise CheckpointError(
                f"{INDEX_FILE} names {outside[0]!r}; expected files beside it", param="model"
            )
        return files

    @property
    def is_sharded(self) -> bool:
        """Whether its weights are in several files with an index; a single file comes first."""
        return not (self.folder / _SINGLE_FILE).is_file()

    @property
    def loading_dtype(self) -> torch.dtype | None:
        """What weights are rounded to when they are loaded; None where they are loaded as they are.

        Files may hold wider numbers than the configuration says.
        """
        for config in (self.config, self.config.get("text_config") or {}):
            found = config.get("dtype") or config.get("torch_dtype")  # the older name
            dtype = getattr(torch, found, None) if isinstance(found, str) else None
            if isinstance(dtype, torch.dtype):
                return dtype
        return None

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every tensor."""
        return tuple(self._owner)

    def shard_of(self, name: str) -> Shard:
        """The shard that holds a tensor."""
        return self._owner[name]

    def tensor(self, name: str) -> Tensor:
        """A tensor, on the CPU.

        Raises:
            CheckpointError: It is not of floating point.
        """
        shard = self._owner[name]
        if shard.dtype(name) not in FLOAT_DTYPES:
            raise CheckpointError(
                f"{name} is stored as {shard.dtype(name)}; expected one of "
                f"{', '.join(FLOAT_DTYPES)}",
                param="model",
            )
        return shard.tensor(name)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}", param="model") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{path.name} is not a JSON object", param="model")
    return document


def _quantisation(config: Any) -> str | None:
    """How the weights are quantised, as the configuration or one inside it says; or None."""
    if not isinstance(config, dict):
        return None
    for key in ("quantization_config", "compression_config"):
        if found := config.get(key):
            return str(found.get("quant_method", key) if isinstance(found, dict) else key)
    return next(filter(None, map(_quantisation, config.values())), None)
