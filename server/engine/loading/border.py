"""The border around what a checkpoint's files may do to the code that reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from server.engine.errors import EngineError, ModelLoadError
from steering.errors import SteeringError
from steering.weights.errors import WeightEditError

__all__ = ["reading"]

_PLAIN: Final = (OSError, ValueError, RuntimeError, ImportError)
"""Errors whose text says what is wrong without their name."""

_MAX_CHARS: Final = 400


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
