"""The model of a checkpoint as transformers makes it, every weight accounted for.

A library that loads what fits, prints the rest and draws what is missing at random would serve
another model than the one in the files. Tensors and parameters that do not go one to one are
refused here, but for parts that a text model leaves out by design.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structlog
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from server.engine.attention.inspection import PAGED
from server.engine.engine import EngineConfig
from server.engine.errors import ModelLoadError
from steering.weights import CheckpointFiles
from steering.weights.checkpoint_files import FLOAT_DTYPES

from .checkpoint import reading
from .memory import free_device_bytes
from .placement import resolve_device, resolve_device_map, resolve_dtype
from .quantisation import is_dequantised, parts_left_out

_log = structlog.get_logger(__name__)

_LEFT_OUT: Final = re.compile(
    r"(^|\.)("
    r"rotary_emb\.inv_freq$|"  # computed from the configuration
    r"(attn|attention)\.masked_bias$|"  # of an older transformers: what it put at masked places
    r"mtp\.|mtp_layers\.|"  # heads that guess further tokens, for speculative decoding
    r"visual\.|(vision|image|audio)_(tower|model|encoder|embed\w*|newline|projector)\b|"
    r"embed_(vision|audio)\.|multi_modal_projector\.|mm_projector\."
    r")"
)
"""Tensors that change no logit of a text."""

_ALTERING: Final = re.compile(
    r"(scales?|scale_inv|zero_?points?|qweight|qzeros|g_idx|absmax|quant_\w+|lora_\w+)(\.\w+)*$"
)
"""Tensors that say how to read others; not left out even where an architecture ignores them."""

_REPORTER: Final = logging.getLogger("transformers.modeling_utils")
_REPORT: Final = "LOAD REPORT"
_UNCONVERTED: Final = re.compile(r"destined for ([\w.]+\w)")
_MAX_NAMES: Final = 5


def load_weights(config: EngineConfig, model_config: Any, files: CheckpointFiles) -> Any:
    """A causal language model with the checkpoint's weights, placed and in evaluation mode.

    Raises:
        ModelLoadError: There is no such device, dtype or memory, or tensors and parameters do not
            go one to one; names them.
    """
    device = resolve_device(config.device)
    device_map = resolve_device_map(config.device_map, device)
    dtype = resolve_dtype(config.dtype, model_config.get_text_config().dtype)
    _check_size(config, model_config, files, dtype, device)
    with _captured_messages() as messages:
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                Path(config.model),
                config=model_config,
                dtype=dtype,
                device_map=device_map,
                attn_implementation=PAGED,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # told below, with names
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
            )
        except RuntimeError:
            unconverted = _UNCONVERTED.findall("\n".join(messages))
            _refuse(config.model, "has parts that do not make up the weights of", unconverted)
            raise
    model, report = loaded
    misshapen = [f"{name} {[*was]} for {[*need]}" for name, was, need in report["mismatched_keys"]]
    unused = {*report["unexpected_keys"], *_ignored(model, files)}
    left_out = {name for name in unused if _is_ignorable(name, report["unexpected_keys"])}
    left_out |= set(parts_left_out(files, unused, left_out))
    _refuse(config.model, "lacks weights", report["missing_keys"])
    _refuse(config.model, "has weights in another shape", misshapen)
    _refuse(config.model, "has tensors that its architecture does not use", unused - left_out)
    _refuse(config.model, "has weights that are not in floating point", _integers(model, files))
    for text in messages:
        if _REPORT not in text:  # it is about the names that are told here
            _log.warning("transformers_warned", message=" ".join(text.split()))
    if left_out:
        kinds = {re.sub(r"\d+", "*", name) for name in left_out}
        _log.info("tensors_no_text_needs_left_out", count=len(left_out), names=_names(kinds))
    _drop_padding_check(model)
    return model.eval().requires_grad_(False)


def _drop_padding_check(model: nn.Module) -> None:
    """Keep transformers from looking for padding in the ids of every step.

    There is none in a pack, and to look reads back from the device: it would wait for the step
    before, and such a step cannot be captured.
    """
    for module in model.modules():
        if hasattr(module, "warn_if_padding_and_no_attention_mask"):
            module.warn_if_padding_and_no_attention_mask = _ignore  # type: ignore[assignment]


def _ignore(*_: object) -> None:
    pass


def _check_size(
    config: EngineConfig,
    model_config: Any,
    files: CheckpointFiles,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Refuse a model that its files cannot fill, or that memory cannot hold, before it is made."""
    num_layers = model_config.get_text_config().num_hidden_layers
    if num_layers > len(files.names):
        raise ModelLoadError(
            f"model {config.model!r}: config.json says {num_layers} layers, but the weights have "
            f"only {len(files.names)} tensors",
            param="model",
        )
    if config.device_map != "none":
        return
    with reading(config.model, "config.json"):
        shape = model_shape(model_config, dtype)
    needed = sum(tensor.nbytes for tensor in (*shape.parameters(), *shape.buffers()))
    free = free_device_bytes(device)
    if needed > free:
        raise ModelLoadError(
            f"model {config.model!r} needs {needed} bytes on {device} in "
            f"{str(dtype).removeprefix('torch.')}; {free} are free. Choose a smaller dtype or "
            "model, or a device with more memory",
            param="model",
        )


def model_shape(model_config: Any, dtype: torch.dtype, attention: str = PAGED) -> Any:
    """The model of a configuration without its weights, on the meta device."""
    auto: Any = AutoModelForCausalLM
    given = {"dtype": dtype, "attn_implementation": attention}
    with torch.device("meta"):
        return auto.from_config(copy.deepcopy(model_config), **given)


@contextmanager
def _captured_messages() -> Iterator[list[str]]:
    """Collect what transformers would log while weights are read, instead of printing it."""
    messages: list[str] = []

    def capture(record: logging.LogRecord) -> bool:
        messages.append(record.getMessage())
        return False

    _REPORTER.addFilter(capture)
    try:
        yield messages
    finally:
        _REPORTER.removeFilter(capture)


def _ignored(model: Any, files: CheckpointFiles) -> Iterator[str]:
    """Tensors that transformers ignores silently, by patterns of the architecture or its own."""
    patterns = {*model._keys_to_ignore_on_load_unexpected, _LEFT_OUT.pattern}
    pattern = re.compile("|".join(f"({pattern})" for pattern in patterns))
    prefix = f"{model.base_model_prefix}."
    used = {name.removeprefix(prefix) for name in _state_names(model)}
    for name in files.names:
        if pattern.search(name) and name.removeprefix(prefix) not in used:
            yield name


def _integers(model: nn.Module, files: CheckpointFiles) -> Iterator[str]:
    """Parameters stored as whole numbers, which a reader would turn into floating point as is.

    Also those of a quantised checkpoint that stayed as they are, for want of a scale.
    """
    known = set(FLOAT_DTYPES.values())
    parameters = dict(model.named_parameters())
    for name in set(parameters).intersection(files.names):
        dtype, loaded = files.shard_of(name).dtype(name), parameters[name].dtype
        if not loaded.is_floating_point:
            continue
        if loaded not in known or not (dtype in FLOAT_DTYPES or is_dequantised(files, name)):
            yield f"{name} ({dtype})"


def _state_names(model: nn.Module) -> set[str]:
    return {name for name, _ in (*model.named_parameters(), *model.named_buffers())}


def _is_ignorable(name: str, unexpected: Iterable[str]) -> bool:
    return not _ALTERING.search(name) and (name not in unexpected or bool(_LEFT_OUT.search(name)))


def _refuse(model: str, complaint: str, names: Iterable[str]) -> None:
    if names := sorted(set(names)):
        raise ModelLoadError(
            f"model {model!r} {complaint}: {_names(names)}. The files and config.json must be of "
            "one model, with adapters merged into it",
            param="model",
        )


def _names(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{', '.join(names[:_MAX_NAMES])}{more}"
