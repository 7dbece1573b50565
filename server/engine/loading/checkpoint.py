"""A checkpoint's folder before anything in it is trusted, and one typed error for its faults."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from server.engine.errors import EngineError, ModelLoadError
from steering.errors import SteeringError
from steering.weights import CheckpointFiles
from steering.weights.errors import WeightEditError

_PLAIN: Final = (OSError, ValueError, RuntimeError, ImportError)
"""Errors whose text says what is wrong without their name."""

_MAX_CHARS: Final = 400
_METADATA: Final = ("config.json", "generation_config.json", "tokenizer_config.json")
_REDIRECTIONS: Final = {
    "auto_map": "names code to run; only architectures that are part of transformers are loaded",
    "transformers_weights": "names other files with weights; save the checkpoint again",
}
_ADAPTERS: Final = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_DISTRIBUTED: Final = "shard-*-model-*.safetensors"
_PICKLED: Final = "pytorch_model*.bin"


@contextmanager
def reading(model: str, part: str = "checkpoint") -> Iterator[None]:
    """Turn whatever goes wrong in reading a part of a checkpoint into one typed line.

    The libraries that read a checkpoint check little of it: a value of the wrong type ends in
    whatever error its first use happens to raise. Our own errors pass as they are.

    Args:
        model: The checkpoint's folder.
        part: What is read, as the message names it.

    Raises:
        ModelLoadError: In place of any other error; the cause is kept for the log.
    """
    try:
        yield
    except (EngineError, SteeringError):
        raise
    except WeightEditError as error:
        raise ModelLoadError(f"model {model!r}: {_shortened(str(error))}", param="model") from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise ModelLoadError(
            f"model {model!r} does not fit in memory: {_line(error)}. Use a smaller dtype, "
            "kv_cache_bytes or model, or a device with more",
            param="model",
        ) from error
    except Exception as error:
        raise _unreadable(model, part, error) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of the Rust in tokenizers and safetensors
            raise
        raise _unreadable(model, part, error) from error


def _unreadable(model: str, part: str, error: BaseException) -> ModelLoadError:
    return ModelLoadError(
        f"model {model!r}: its {part} cannot be used: {_line(error)}", param="model"
    )


def _line(error: BaseException) -> str:
    text = _shortened(str(error))
    name = "" if text and isinstance(error, _PLAIN) else type(error).__name__
    return ": ".join(filter(None, (name, text)))


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}..."


def check_checkpoint(path: Path) -> CheckpointFiles:
    """Refuse a folder that is no checkpoint, would need unpickling, or names code to run.

    Reads what is small: the configuration and the heads of the weights' files.

    Returns:
        Which tensors it holds.

    Raises:
        ModelLoadError: With `param` "model".
        CheckpointError: A file of the weights is damaged or missing.
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
    return CheckpointFiles(path, allow_quantised=True)


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
        pickled = any(path.glob(_PICKLED))
        raise ModelLoadError(
            f"model {str(path)!r} has neither model.safetensors nor model.safetensors.index.json; "
            "pickled and other weights are not read, convert them first"
            + (f": {safetensors_command(str(path), str(path))}" if pickled else ""),
            param="model",
        )


def safetensors_command(model: str, out: str) -> str:
    """The command that writes a checkpoint again, in safetensors.

    Args:
        model: Its folder, or its id on the hub.
        out: The folder to write, less `-safetensors`.
    """
    code = (
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
        f"a, b = {json.dumps(model)}, {json.dumps(f'{out}-safetensors')}; "
        'M.from_pretrained(a, dtype="auto").save_pretrained(b); '
        "T.from_pretrained(a).save_pretrained(b)"
    )
    return f"python -c {shlex.quote(code)}"


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
