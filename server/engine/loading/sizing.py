"""What a model will take, and how many requests it leaves room for, before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from server.engine.cpu import has_float16_products, packs_when_free
from server.engine.engine import EngineConfig
from server.engine.errors import ModelLoadError

from .architecture import read_config
from .checkpoint import reading
from .memory import KVMemory, free_device_bytes, plan_blocks
from .placement import resolve_device, resolve_dtype
from .positions import give_positions
from .pretrained import model_shape

_SIZED: Final = "coxswain_sized"
"""Name under which `_sized_attention` is registered; no mask is made for it."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """A model as it would be loaded on this machine now.

    Attributes:
        num_parameters: Its parameters; tied ones once.
        dtype: Data type of its weights.
        weight_bytes: Memory of its weights.
        packed_bytes: Memory of their second copy on a CPU, in the layout its kernels prefer; 0
            where there is too little memory for it.
        device: Where it would be.
        free_bytes: Memory that is free there.
        kv_token_bytes: Memory of the keys and values of one token.
        cache: The cache that would be planned; None where the model does not fit.
        fault: Why it does not fit; None where it does.
    """

    num_parameters: int
    dtype: str
    weight_bytes: int
    packed_bytes: int
    device: str
    free_bytes: int
    kv_token_bytes: int
    cache: KVMemory | None
    fault: str | None


def size_model(config: EngineConfig) -> ModelSize:
    """Size the model whose `config.json` is in the folder `config.model`; reads nothing else.

    The arithmetic is that of loading it, on one device.

    Raises:
        ModelLoadError: The configuration, or a setting, cannot be used.
        SteeringError: The architecture is not supported.
    """
    with reading(config.model, "config.json"):
        model_config = read_config(Path(config.model))
        device = resolve_device(config.device)
        dtype = resolve_dtype(config.dtype, model_config.get_text_config().dtype)
        model = model_shape(model_config, dtype, _attention())
        kv_token_bytes = _kv_token_bytes(model)
    weight_bytes = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    free = free_device_bytes(device)
    packed_bytes = 0
    if device.type == "cpu" and config.pack_weights:
        packed_bytes = _packed_bytes(model, config, max(free - weight_bytes, 0))
    cache, fault = None, None
    if weight_bytes > free:
        fault = f"its weights take {weight_bytes} bytes on {device}, of which {free} are free"
    else:
        positions = getattr(model_config.get_text_config(), "max_position_embeddings", None)
        block_bytes = {device: kv_token_bytes * config.block_size}
        try:
            cache = plan_blocks(config, block_bytes, positions, weight_bytes + packed_bytes)
        except ModelLoadError as error:
            fault = str(error)
    return ModelSize(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        dtype=str(dtype).removeprefix("torch."),
        weight_bytes=weight_bytes,
        packed_bytes=packed_bytes,
        device=str(device),
        free_bytes=free,
        kv_token_bytes=kv_token_bytes,
        cache=cache,
        fault=fault,
    )


def _attention() -> str:
    AttentionInterface.register(_SIZED, _sized_attention)
    return _SIZED


def _sized_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object
) -> tuple[Tensor, None]:
    """Adds the bytes of a token's keys and values; gives something of the right shape."""
    module.coxswain_bytes.append(key.shape[1] * (key.shape[3] + value.shape[3]) * key.itemsize)
    return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]), None


def _packed_bytes(model: nn.Module, config: EngineConfig, free: int) -> int:
    """Bytes of packed linear weights; with the float16 form where all of bfloat16 may have one."""
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    packed = packs_when_free(sum(weight.nbytes for weight in weights), free)
    if config.decode_weights == "off" or not has_float16_products():
        return packed
    if any(weight.dtype is not torch.bfloat16 for weight in weights):
        return packed  # whether they are exact in float16 only the weights themselves say
    return packs_when_free(2 * packed, free) or packed


def _kv_token_bytes(model: Any) -> int:
    """Run the model without weights on one token, to see what its layers keep."""
    found: list[int] = []
    for module in model.modules():
        module.coxswain_bytes = found
    give_positions(model)
    model.config.pad_token_id = None  # it would be looked for among tokens that have no values
    token = torch.zeros(1, 1, dtype=torch.int64, device="meta")
    with torch.inference_mode():
        model(input_ids=token, position_ids=token, use_cache=False)
    return sum(found)
