"""What a model's name stands for: which files, what they are served as, and why these."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.engine.errors import ModelLoadError
from server.engine.loading.checkpoint import check_checkpoint
from server.engine.loading.gguf import convert_gguf, write_gguf_config

from .hub import find_snapshot, is_complete
from .named import (
    EMBEDDED_MODEL,
    EMBEDDED_NAME,
    ORGANISM,
    SMOLLM2,
    SMOLLM2_INSTALL,
    SMOLLM2_PACKAGE,
    smollm2_file,
)

_GGUF: Final = ".gguf"
_HUB_ID: Final = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w.-]+))?")
_EXPECTED: Final = (
    f"expected {SMOLLM2}, {ORGANISM}, a checkpoint's folder, a {_GGUF} file, or the id of a model "
    "on the Hugging Face hub (owner/name)"
)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        path: The folder of a checkpoint, or a GGUF file.
        served_name: Name to serve it under.
        reason: Why it is this one, as a line to log.
        name: `ORGANISM` or `SMOLLM2`; None for another.
        has_weights: Whether its weights are there; of a model of the hub, perhaps only its
            configuration is.
    """

    path: Path
    served_name: str
    reason: str
    name: str | None = None
    has_weights: bool = True

    def folder(self, cache: Path, dtype: str = "auto") -> Path:
        """The folder to load: `path`, or what a GGUF file is converted to, once, under `cache`.

        Raises:
            ModelLoadError: The file cannot be converted.
        """
        return convert_gguf(self.path, cache, dtype) if self.path.suffix == _GGUF else self.path

    def config_folder(self, scratch: Path) -> Path:
        """A folder with the model's `config.json`: `path`, or `scratch` for that of a GGUF file.

        Raises:
            ModelLoadError: What is there cannot be loaded, as far as it shows without reading
                weights.
            CheckpointError: So too.
        """
        if self.path.suffix != _GGUF:
            if self.has_weights:
                check_checkpoint(self.path)
            return self.path
        write_gguf_config(self.path, scratch)
        return scratch


def find_model(given: str | None, *, weights: bool = True) -> ModelSource:
    """Find the files of a model; one of the hub that is not here is downloaded.

    A name comes before a folder of that name: write `./smollm2` for that.

    Args:
        given: `SMOLLM2`, `ORGANISM`, a folder, a GGUF file, or an id of the hub, with
            `@revision` after it if wanted; None takes SmolLM2 where it is installed, else the
            organism.
        weights: Whether its weights are wanted; otherwise a configuration is enough.

    Raises:
        ModelLoadError: There is no such model, or it cannot be had.
    """
    if given is None:
        return _default()
    if given == ORGANISM:
        return _organism("as asked for")
    if given == SMOLLM2:
        return _smollm2("as asked for")
    path = Path(given)
    if path.suffix == _GGUF and path.is_file():
        return ModelSource(path, path.stem, f"the GGUF file {given}")
    if given and path.is_dir():
        return ModelSource(path, path.resolve().name, f"the folder {given}")
    if not path.exists() and (found := _HUB_ID.fullmatch(given)):
        repo_id, revision = found.groups()
        folder, how = find_snapshot(repo_id, revision, weights=weights)
        return ModelSource(
            path=folder,
            served_name=repo_id,
            reason=f"{repo_id} of the Hugging Face hub, {how}",
            has_weights=weights or is_complete(folder),
        )
    state = "is no checkpoint" if path.exists() else "does not exist"
    raise ModelLoadError(f"model is {given!r}, which {state}; {_EXPECTED}", param="model")


def _default() -> ModelSource:
    if smollm2_file() is None:
        return _organism(f"because no model was given and {SMOLLM2_PACKAGE} is not installed")
    return _smollm2(f"because no model was given and {SMOLLM2_PACKAGE} is installed")


def _organism(why: str) -> ModelSource:
    return ModelSource(EMBEDDED_MODEL, EMBEDDED_NAME, f"{ORGANISM}, {why}", ORGANISM)


def _smollm2(why: str) -> ModelSource:
    path = smollm2_file()
    if path is None:
        raise ModelLoadError(
            f"model is {SMOLLM2!r}, whose package is not installed; get it with {SMOLLM2_INSTALL}",
            param="model",
        )
    return ModelSource(path, SMOLLM2, f"{SMOLLM2}, {why}", SMOLLM2)
