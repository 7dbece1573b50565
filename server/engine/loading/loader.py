"""From a folder with a checkpoint to a model that is ready to serve."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
)
from transformers.utils.logging import disable_progress_bar

from server.engine.attention import (
    AttentionSpec,
    PagedAttention,
    ScheduledSequence,
    inspect_attention,
)
from server.engine.attention.inspection import INSPECTED, PAGED, MaskRule, inspected_attention
from server.engine.attention.paged_attention import paged_attention
from server.engine.config import EngineConfig
from server.engine.errors import EngineError
from server.engine.outputs import EngineInfo
from server.engine.text import Tokenizer
from steering.errors import SteeringError, UnsupportedArchitectureError
from steering.fingerprint import model_fingerprint
from steering.layout import AttentionReader, Layout, detect_layout
from steering.model_spec import ModelSpec
from steering.self_check import self_check

from .checkpoint import check_checkpoint
from .host_memory import free_memory_bytes, keep_freed_memory
from .kv_memory import KVMemory, plan_kv_memory
from .neutral_text import NEUTRAL_TEXTS
from .packed_linear import linear_weight_bytes, pack_linear
from .placement import physical_cores, placement_summary, resolve_device, resolve_dtype
from .residual_norms import measure_residual_norms
from .rope import freeze_longrope, refuse_dynamic_rope

__all__ = ["LoadedModel", "load"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model with its attention, its map and its numbers.

    Attributes:
        config: What was asked, with every automatic value resolved.
        model: In evaluation mode, without gradients; attends through `attention` only.
        tokenizer: Its tokenizer.
        layout: Where its sites are; verified.
        attention: Its cache; `begin_step` before every forward.
        device: Where token ids and positions go.
        info: What callers may rely on.
    """

    config: EngineConfig
    model: nn.Module
    tokenizer: Tokenizer
    layout: Layout
    attention: PagedAttention
    device: torch.device
    info: EngineInfo

    @property
    def spec(self) -> ModelSpec:
        """The numbers steering is compiled against."""
        return self.info.spec


def load(config: EngineConfig) -> LoadedModel:
    """Load, place and check a model; reads only the local folder `config.model`.

    Sets torch's thread count. Takes the time to read and hash the weights and to run some ten
    short forwards.

    Raises:
        EngineError: The checkpoint or the placement cannot be used; names the setting.
        SteeringError: The architecture is not supported, or its map fails the self-check.
    """
    num_threads = config.num_threads or physical_cores()
    torch.set_num_threads(num_threads)
    model = _load_weights(config)
    refuse_dynamic_rope(model)
    layers = inspect_attention(model)
    specs = tuple(spec for _, spec in layers)
    if any(spec.device.type == "cpu" for spec in specs):
        keep_freed_memory()
    if config.pack_weights:
        _pack_weights(model)
    memory = plan_kv_memory(config, specs, _max_positions(model))
    rope = freeze_longrope(model, memory.max_model_len)
    attention = PagedAttention(layers, memory.num_blocks, config.block_size)
    layout = detect_layout(model)
    device = model.get_input_embeddings().weight.device
    forward = _single_sequence(model, attention, device)
    self_check(layout, forward)
    tokenizer = Tokenizer.load(Path(config.model))
    resolved = _resolved(config, specs, memory, num_threads)
    texts = [tokenizer.encode(text)[: memory.max_model_len] for text in NEUTRAL_TEXTS]
    spec = ModelSpec(
        name=resolved.served_name or "",
        family=layout.family,
        fingerprint=model_fingerprint(model, model.config.to_dict() | {"longrope": rope}),
        num_layers=layout.num_layers,
        hidden_size=layout.hidden_size,
        num_heads=layout.num_heads,
        head_dim=layout.head_dim,
        unavailable_sites=layout.unavailable_sites,
        resid_norms=measure_residual_norms(layout, forward, texts),
        write_bias_means=layout.write_bias_means,
        max_abs=torch.finfo(specs[0].dtype).max,
    )
    info = _info(resolved, spec, memory, specs, _vocab_size(model), AttentionReader(layout))
    _log.info(
        "loaded %s (%s) on %s in %s: %d layers, context %d, %d blocks of %d tokens",
        *(spec.name, spec.family, info.device, info.dtype, spec.num_layers),
        *(info.max_model_len, info.num_kv_blocks, info.block_size),
    )
    return LoadedModel(resolved, model, tokenizer, layout, attention, device, info)


def _load_weights(config: EngineConfig) -> Any:
    path = Path(config.model)
    check_checkpoint(path)
    disable_progress_bar()  # type: ignore[no-untyped-call]
    AttentionInterface.register(PAGED, paged_attention)
    AttentionInterface.register(INSPECTED, inspected_attention)
    AttentionMaskInterface.register(INSPECTED, MaskRule)
    device = resolve_device(config.device)
    options = {"local_files_only": True, "trust_remote_code": False}
    loaded: Any
    try:
        model_config = AutoConfig.from_pretrained(path, **options)
        _check_architecture(model_config)
        loaded = AutoModelForCausalLM.from_pretrained(
            path,
            config=model_config,
            dtype=resolve_dtype(config.dtype, model_config.get_text_config().dtype),
            device_map={"": device} if config.device_map == "none" else config.device_map,
            attn_implementation=PAGED,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except SteeringError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise EngineError(
            f"model {config.model!r} cannot be loaded: {error}", param="model"
        ) from error
    model, report = loaded
    lacking = sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])})
    if lacking:
        raise EngineError(
            f"model {config.model!r} lacks weights, or has them in another shape: "
            f"{', '.join(lacking[:5])}{', ...' if len(lacking) > 5 else ''}",
            param="model",
        )
    return model.eval().requires_grad_(False)


def _check_architecture(model_config: PreTrainedConfig) -> None:
    """Refuse what cannot attend through us before its weights are read."""
    architecture: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(model_config), None)
    if architecture is None or not architecture._supports_attention_backend:
        name = model_config.model_type if architecture is None else architecture.__name__
        raise UnsupportedArchitectureError(
            f"{name} is not a causal language model that calls attention through transformers' "
            "attention interface, which batching and caching here depend on",
            param="model",
        )


def _pack_weights(model: nn.Module) -> None:
    needed, free = linear_weight_bytes(model), free_memory_bytes()
    if needed <= free // 4:
        _log.info("packed %d linear weights, %d bytes", pack_linear(model), needed)
    else:
        _log.warning("weights not packed: %d bytes needed, %d free; CPU is slower", needed, free)


def _single_sequence(
    model: Any, attention: PagedAttention, device: torch.device
) -> Callable[[Tensor], object]:
    """The model as a function of the token ids [1, T] of one sequence in the first blocks."""

    def forward(token_ids: Tensor) -> object:
        num_tokens = token_ids.shape[1]
        blocks = range(-(-num_tokens // attention.block_size))
        attention.begin_step([ScheduledSequence(blocks, 0, num_tokens)])
        with torch.inference_mode():
            return model(
                input_ids=token_ids.to(device),
                position_ids=torch.arange(num_tokens, device=device)[None],
                use_cache=False,
                logits_to_keep=torch.tensor([num_tokens - 1], device=device),
            )

    return forward


def _max_positions(model: Any) -> int | None:
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _vocab_size(model: Any) -> int:
    return int(model.get_output_embeddings().weight.shape[0])


def _resolved(
    config: EngineConfig, specs: tuple[AttentionSpec, ...], memory: KVMemory, num_threads: int
) -> EngineConfig:
    return replace(
        config,
        served_name=config.served_name or Path(config.model).resolve().name,
        device=str(specs[0].device),
        dtype=str(specs[0].dtype).removeprefix("torch."),
        num_threads=num_threads,
        max_model_len=memory.max_model_len,
        kv_cache_bytes=memory.num_bytes,
    )


def _info(
    config: EngineConfig,
    spec: ModelSpec,
    memory: KVMemory,
    specs: tuple[AttentionSpec, ...],
    vocab_size: int,
    attention: AttentionReader,
) -> EngineInfo:
    return EngineInfo(
        model_name=spec.name,
        spec=spec,
        max_model_len=memory.max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_live_edits=config.max_live_edits,
        vocab_size=vocab_size,
        dtype=config.dtype,
        device=placement_summary(specs),
        num_threads=config.num_threads,
        num_kv_blocks=memory.num_blocks,
        block_size=config.block_size,
        attention=attention,
    )
