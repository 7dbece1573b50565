"""How a model's makers recommend to sample it: `generation_config.json` of transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from server.engine.errors import InvalidSamplingError, ModelLoadError
from server.engine.sampling import SamplingDefaults

GENERATION_CONFIG: Final = "generation_config.json"

_FIELDS: Final[Mapping[str, tuple[str, type]]] = {
    "temperature": ("temperature", float),
    "top_p": ("top_p", float),
    "top_k": ("top_k", int),
    "min_p": ("min_p", float),
    "repetition_penalty": ("repetition_penalty", float),
    "max_new_tokens": ("max_tokens", int),
}
"""What is read, under its name here and with its type; vLLM reads the same. `do_sample` is not: it
is false in the files of most models that are meant to be sampled."""


def read_sampling_defaults(folder: Path) -> SamplingDefaults:
    """The defaults in the `generation_config.json` of a folder; none where it has no such file.

    Raises:
        ModelLoadError: The file is not a JSON object, or a value cannot be used; names both.
    """
    path = folder / GENERATION_CONFIG
    if not path.is_file():
        return SamplingDefaults()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"{str(path)!r} is not JSON: {error}", param="model") from None
    if not isinstance(document, dict):
        raise ModelLoadError(f"{str(path)!r} is not a JSON object", param="model")
    return parse_sampling_defaults(document, str(path))


def parse_sampling_defaults(document: Mapping[str, Any], source: str) -> SamplingDefaults:
    """The defaults in a generation configuration as transformers writes it.

    Args:
        document: The configuration; fields that are not about sampling are left alone.
        source: Where it is from, for errors.

    Raises:
        ModelLoadError: A value has the wrong type or is outside its range; names the field.
    """
    found: dict[str, Any] = {}
    for field, (name, kind) in _FIELDS.items():
        value = document.get(field)
        if value is None:
            continue
        is_number = isinstance(value, int if kind is int else int | float)
        if not is_number or isinstance(value, bool):
            raise _refused(source, f"{field} is {value!r:.80}; expected {_NOUNS[kind]}")
        found[name] = kind(value)
    try:
        return SamplingDefaults(**found)
    except InvalidSamplingError as error:
        raise _refused(source, str(error)) from None


_NOUNS: Final = {float: "a number", int: "a whole number"}


def _refused(source: str, problem: str) -> ModelLoadError:
    return ModelLoadError(
        f"{source!r}: {problem}. Correct it, or set generation_config to none", param="model"
    )
