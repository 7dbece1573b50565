"""GGUF files, dequantised once into a checkpoint's folder that is loaded like any other."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, Final

import gguf
import structlog
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig, PreTrainedTokenizerFast

from server.engine.errors import ModelLoadError
from server.engine.loading.checkpoint import reading
from server.engine.loading.memory import free_memory_bytes
from steering.weights import OutputExistsError
from steering.weights.output_folder import output_folder

from .config import ROPE_FACTORS, gguf_config, gguf_generation_config
from .file import GgufFile, read_gguf

_log = structlog.get_logger(__name__)

_SPLIT: Final = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_DIGEST_DIGITS: Final = 32


def convert_gguf(path: Path, cache: Path, dtype: str = "auto") -> Path:
    """The checkpoint's folder of a GGUF file's model; made under `cache` if it is not there.

    Its name is the file's SHA-256 with the data type, so that another file of the same name is
    another folder. It appears whole or not at all. Takes the memory of the model in `dtype` and
    of its largest tensor in float32, and as much of the disk as the model's files.

    Args:
        path: The file.
        cache: Folder of such folders.
        dtype: Of the weights written; `auto` is the file's own, bfloat16 where it is quantised.

    Raises:
        ModelLoadError: The file cannot be used, or there is too little memory or disk for it.
    """
    with reading(str(path), "GGUF file"):
        file = _read(path)
        config = gguf_config(file)
        dtype = file.dtype if dtype == "auto" else dtype
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()[:_DIGEST_DIGITS]
        folder = cache / f"{digest}-{dtype}"
        if not (folder / "config.json").is_file():
            _check_room(file, cache, dtype)
            _log.info("gguf_conversion", file=str(path), folder=str(folder), dtype=dtype)
            try:
                with output_folder(folder, path) as made:
                    _convert(file, config, getattr(torch, dtype), made)
            except OutputExistsError:  # another process was faster, with the same content
                if not (folder / "config.json").is_file():
                    raise
        return folder


def write_gguf_config(path: Path, folder: Path) -> None:
    """Write the `config.json` of a GGUF file's model, without converting it.

    Raises:
        ModelLoadError: The file cannot be used.
    """
    with reading(str(path), "GGUF file"):
        file = _read(path)
        text = json.dumps(gguf_config(file) | {"dtype": file.dtype})
        (folder / "config.json").write_text(text, encoding="utf-8")


def _read(path: Path) -> GgufFile:
    if _SPLIT.search(path.name):
        raise ModelLoadError(
            f"model is {str(path)!r}, a part of a file that was split; put it together first: "
            f"llama-gguf-split --merge {path.name} whole.gguf",
            param="model",
        )
    return read_gguf(path)


def _check_room(file: GgufFile, cache: Path, dtype: str) -> None:
    """Refuse what memory or disk cannot hold, before it is read."""
    sizes = [tensor.num_elements for tensor in file.tensors.values()]
    stored = sum(sizes) * getattr(torch, dtype).itemsize
    largest = max(sizes) * torch.float32.itemsize
    cache.mkdir(parents=True, exist_ok=True)
    place = f"disk under {str(cache)!r} (data_dir)"
    for what, needed, free in (
        ("memory", stored + largest, free_memory_bytes()),
        (place, stored, shutil.disk_usage(cache).free),
    ):
        if needed > free:
            raise ModelLoadError(
                f"model {str(file.path)!r} takes {needed} bytes of {what} in {dtype}; {free} are "
                "free. Choose a smaller dtype or model, or make room",
                param="model",
            )


def _convert(file: GgufFile, config: dict[str, Any], dtype: torch.dtype, folder: Path) -> None:
    given: dict[str, Any] = {"gguf_file": file.path.name, "local_files_only": True}
    # The bar that is drawn meanwhile is one that no setting of transformers turns off.
    with redirect_stderr(io.StringIO()), _one_table_of_names():
        PreTrainedTokenizerFast.from_pretrained(file.path.parent, **given).save_pretrained(folder)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            file.path.parent,
            **given,
            config=AutoConfig.for_model(**config),
            dtype=dtype,
            device_map={"": torch.device("cpu")},
            quantization_config=GgufConfig(dequantize=True),
            ignore_mismatched_sizes=True,  # told below, with names
            output_loading_info=True,
        )
        model, report = loaded
        _check_complete(file, model, report)
        model.save_pretrained(folder)
    text = json.dumps(gguf_generation_config(file), indent=2)
    (folder / "generation_config.json").write_text(f"{text}\n", encoding="utf-8")
    for written in folder.iterdir():
        with written.open("rb") as content:
            os.fsync(content.fileno())


@contextmanager
def _one_table_of_names() -> Iterator[None]:
    """Make the table of tensors' names once; transformers asks for it at every module of a model.

    That is half the time of converting a small model.
    """
    make = gguf.get_tensor_name_map
    gguf.get_tensor_name_map = functools.cache(make)
    try:
        yield
    finally:
        gguf.get_tensor_name_map = make


def _check_complete(file: GgufFile, model: Any, report: Any) -> None:
    """Refuse a model that some weight of the file is not in, or that has others.

    transformers leaves out tensors that it has no place for, silently; but no two of its places
    take the same one, so that counting the elements on both sides finds any.
    """
    faults = sorted(report["missing_keys"]) + [name for name, *_ in report["mismatched_keys"]]
    if faults:
        raise ModelLoadError(
            f"model {str(file.path)!r} lacks weights, or has them in another shape: "
            f"{', '.join(faults[:5])}",
            param="model",
        )
    given = {name: tensor.num_elements for name, tensor in file.tensors.items()}
    given.pop(ROPE_FACTORS, None)  # in the configuration
    placed = sum(parameter.numel() for parameter in model.parameters())  # tied ones once
    if sum(given.values()) != placed:
        raise ModelLoadError(
            f"model {str(file.path)!r} has {sum(given.values())} weights, its architecture "
            f"{placed}: some of its tensors are not understood. Serve the original checkpoint "
            "(safetensors) instead",
            param="model",
        )
