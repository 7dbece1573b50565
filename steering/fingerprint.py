"""A short name for everything that changes a model's numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from .errors import SteeringError
from .tensor_bytes import tensor_bytes

FULL_CONTENT_BYTES: Final = 64 * 2**20
"""Models up to this many bytes of weights are hashed byte by byte."""

VOLATILE_KEYS: Final = frozenset(
    {
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_commit_hash",
        "_experts_implementation",
        "_model_name_or_path",
        "_name_or_path",
        "attn_implementation",
        "dtype",
        "id2label",
        "label2id",
        "name_or_path",
        "output_attentions",
        "output_hidden_states",
        "problem_type",
        "return_dict",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Configuration that says where a model came from or how it is run, not what it computes."""

_DIGITS: Final = 32
_SAMPLED_ITEMS: Final = 4096
_CHUNK_ITEMS: Final = 2**22
_WORDS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def model_fingerprint(model: nn.Module, config: Mapping[str, Any]) -> str:
    """Hash a model's configuration and weights: 32 hexadecimal digits.

    It covers `config` without `VOLATILE_KEYS`, at any depth, and the name, dtype, shape and
    content of every parameter and persistent buffer. It is the same on any device, after saving
    and loading, and whatever the model is called. It differs between dtypes of one checkpoint,
    because their numbers differ.

    Content is every byte up to `FULL_CONTENT_BYTES` of weights. Beyond that it is, of every
    tensor, 4096 evenly spaced elements and the exact sum of all elements' bit patterns modulo
    2^64: any change of one element is seen, and so is any fine-tuning; elements that trade
    places between the samples are not. It guards against mistakes, not against a forger.

    Reads every weight once, in chunks; on a device it synchronises once for each tensor.

    Raises:
        SteeringError: A weight is on the meta device, so its content is not known.
    """
    state = hashlib.sha256(_canonical(config).encode())
    tensors = dict(sorted(model.state_dict().items()))
    is_small = sum(tensor.nbytes for tensor in tensors.values()) <= FULL_CONTENT_BYTES
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise SteeringError(
                f"weight {name} is on the meta device; load the model in full before steering it",
                param="model",
            )
        state.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        words = tensor.detach().reshape(-1).view(_WORDS[tensor.itemsize])
        state.update(tensor_bytes(words) if is_small else _sampled(words))
    return state.hexdigest()[:_DIGITS]


def _canonical(config: Mapping[str, Any]) -> str:
    return json.dumps(_stable(config), sort_keys=True, default=str)


def _stable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _stable(v) for k, v in value.items() if k not in VOLATILE_KEYS}
    if isinstance(value, list | tuple):
        return [_stable(item) for item in value]
    return value


def _sampled(words: Tensor) -> bytes:
    stride = max(1, words.numel() // _SAMPLED_ITEMS)
    total = torch.zeros((), dtype=torch.int64, device=words.device)
    for start in range(0, words.numel(), _CHUNK_ITEMS):
        total += words[start : start + _CHUNK_ITEMS].sum(dtype=torch.int64)
    return tensor_bytes(words[::stride]) + tensor_bytes(total)
