"""Loads a checkpoint's folder into a model that is ready to serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog
import torch
from torch import Tensor, nn

from server.engine.attention import (
    AttentionSpec,
    PagedAttention,
    ScheduledSequence,
    activate_flash_attention,
    inspect_attention,
)
from server.engine.cpu import (
    has_float16_products,
    linear_weight_bytes,
    measure_float16_rows,
    pack_linear,
    packs_when_free,
    use_float16,
)
from server.engine.engine import EngineConfig
from server.engine.errors import ModelLoadError
from server.engine.outputs import EngineInfo
from server.engine.sampling import SamplingDefaults
from server.engine.text import Tokenizer
from steering.fingerprint import model_fingerprint
from steering.layout import AttentionReader, Layout, detect_layout
from steering.model_spec import ModelSpec
from steering.self_check import self_check

from .adapter import check_adapter, merge_adapter
from .architecture import read_config
from .checkpoint import check_checkpoint, reading
from .generation_config import read_sampling_defaults
from .memory import KVMemory, context_limit, free_memory_bytes, keep_freed_memory, plan_kv_memory
from .pack_check import check_packing
from .placement import physical_cores, placement_summary
from .positions import freeze_longrope, give_positions, refuse_dynamic_rope
from .pretrained import load_weights
from .residual_norms import measure_residual_norms, neutral_tokens

_log = structlog.get_logger(__name__)

_FLOAT16_ROWS: Final = 6
"""Most rows of a step that use float16 weights where this is not measured."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A loaded model, its paged attention, the layout of its sites and its sizes.

    Attributes:
        config: The configuration, with every automatic value resolved.
        model: The model in evaluation mode, without gradients; attends through `attention` only.
        tokenizer: The checkpoint's tokenizer.
        layout: The modules at which its sites are; verified by the self-check.
        attention: Its cache; call `begin_step` before every forward.
        device: Device of the token ids and positions.
        info: The facts about the engine that callers may rely on.
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
    short forwards; what is cheap to check comes before the weights.

    Raises:
        ModelLoadError: The checkpoint or the placement cannot be used; names the setting.
        SteeringError: The architecture is not supported, or its map fails the self-check.
    """
    with reading(config.model):
        loaded = _load(config)
    info = loaded.info
    _log.info(
        "model_loaded",
        model=info.spec.name,
        family=info.spec.family,
        device=info.device,
        dtype=info.dtype,
        num_layers=info.spec.num_layers,
        max_model_len=info.max_model_len,
        num_kv_blocks=info.num_kv_blocks,
        block_size=info.block_size,
    )
    return loaded


def _load(config: EngineConfig) -> LoadedModel:
    num_threads = config.num_threads or physical_cores()
    torch.set_num_threads(num_threads)
    model, tokenizer, texts = _read(config)
    refuse_dynamic_rope(model)
    give_positions(model)
    layers = inspect_attention(model)
    specs = tuple(spec for _, spec in layers)
    if any(spec.device.type == "cpu" for spec in specs):
        keep_freed_memory()
    if config.pack_weights:
        _pack_weights(config, model)
    memory = plan_kv_memory(config, specs, _max_positions(model.config))
    rope = freeze_longrope(model, memory.max_model_len)
    activate_flash_attention(specs[0].device)
    attention = PagedAttention(layers, memory.num_blocks, config.block_size)
    layout = detect_layout(model)
    device = model.get_input_embeddings().weight.device
    forward = _single_sequence(model, attention, device)
    self_check(layout, forward)
    check_packing(model, attention, device)
    resolved = _resolved(config, specs, memory, num_threads)
    spec = ModelSpec(
        name=resolved.served_name or "",
        family=layout.family,
        fingerprint=model_fingerprint(model, model.config.to_dict() | {"longrope": rope}),
        num_layers=layout.num_layers,
        hidden_size=layout.hidden_size,
        num_heads=layout.num_heads,
        head_dim=layout.head_dim,
        unavailable_sites=layout.unavailable_sites,
        resid_norms=measure_residual_norms(
            layout, forward, [ids[: memory.max_model_len] for ids in texts]
        ),
        write_bias_means=layout.write_bias_means,
        max_abs=torch.finfo(specs[0].dtype).max,
    )
    info = _info(resolved, spec, memory, specs, _vocab_size(model), AttentionReader(layout))
    return LoadedModel(resolved, model, tokenizer, layout, attention, device, info)


def _read(config: EngineConfig) -> tuple[Any, Tokenizer, Sequence[Sequence[int]]]:
    """The model, its tokenizer and neutral tokens; cheap faults come before the weights."""
    path = Path(config.model)
    files = check_checkpoint(path)
    adapter = None if config.adapter is None else Path(config.adapter)
    if adapter is not None:
        check_adapter(adapter)
    with reading(config.model, "config.json"):
        model_config = read_config(path)
        context_limit(config, _max_positions(model_config))
    with reading(config.model, "tokenizer"):
        tokenizer = Tokenizer.load(
            path,
            thinking_markers=config.thinking_markers,
            chat_template=config.chat_template,
        )
        texts = neutral_tokens(tokenizer, model_config.get_text_config().vocab_size)
    model = load_weights(config, model_config, files)
    if adapter is not None:
        model = merge_adapter(model, adapter)
    return model, tokenizer, texts


def _pack_weights(config: EngineConfig, model: nn.Module) -> None:
    """Pack linear weights for the CPU, in one form or two, where a quarter of free memory holds it.

    Raises:
        ModelLoadError: Float16 weights were asked for by name and cannot be had.
    """
    needed, free = linear_weight_bytes(model), free_memory_bytes()
    if not packs_when_free(needed, free):
        if needed:
            _log.warning(
                "weights_not_packed",
                needed_bytes=needed,
                free_bytes=free,
                message="too little memory is free; the CPU is slower for it",
            )
        _refuse_without_float16(config, "its linear weights are not packed on the CPU")
        return
    in_float16 = config.decode_weights != "off" and has_float16_products()
    both = needed + linear_weight_bytes(model, torch.float16)
    if in_float16 and not packs_when_free(both, free):
        in_float16 = False
        _log.warning(
            "float16_weights_left_out",
            free_bytes=free,
            message="too little memory is free for them; a single stream is slower for it",
        )
    products = pack_linear(model, in_float16=in_float16)
    max_rows = 0
    if any(product.has_float16 for product in products):
        is_measured = config.decode_weights == "auto"
        max_rows = measure_float16_rows(products) if is_measured else _FLOAT16_ROWS
    else:
        _refuse_without_float16(config, "FBGEMM, memory or weights that float16 holds are missing")
    use_float16(products, max_rows)
    in_use = [product for product in products if product.has_float16]
    _log.info(
        "weights_packed",
        num_products=len(products),
        num_bytes=needed,
        num_float16=len(in_use),
        float16_bytes=sum(product.float16_bytes for product in in_use),
        float16_rows=max_rows,
    )


def _refuse_without_float16(config: EngineConfig, reason: str) -> None:
    if config.decode_weights == "float16":
        raise ModelLoadError(
            f"decode_weights is float16, which this model cannot have here: {reason}; expected "
            "auto or off",
            param="decode_weights",
        )


def _single_sequence(
    model: Any, attention: PagedAttention, device: torch.device
) -> Callable[[Tensor], Any]:
    """The model as a function of the token ids [1, T] of one sequence in the first blocks.

    The function raises ModelLoadError where the model gives what is no number.
    """

    def forward(token_ids: Tensor) -> Any:
        num_tokens = token_ids.shape[1]
        blocks = range(-(-num_tokens // attention.block_size))
        attention.begin_step([ScheduledSequence(blocks, 0, num_tokens)])
        with torch.inference_mode():
            output = model(
                input_ids=token_ids.to(device),
                position_ids=torch.arange(num_tokens, device=device)[None],
                use_cache=False,
                logits_to_keep=torch.tensor([num_tokens - 1], device=device),
            )
        if not output.logits.amax(-1).isfinite().all():  # some may be -inf by design
            raise ModelLoadError(
                "the model gives NaN or infinity for plain tokens: its weights or config.json are "
                "damaged, or the dtype is too narrow for it (float16 often is; set dtype)",
                param="model",
            )
        return output

    return forward


def _max_positions(model_config: Any) -> int | None:
    return getattr(model_config.get_text_config(), "max_position_embeddings", None)


def _vocab_size(model: Any) -> int:
    return int(model.get_output_embeddings().weight.shape[0])


def _resolved(
    config: EngineConfig, specs: tuple[AttentionSpec, ...], memory: KVMemory, num_threads: int
) -> EngineConfig:
    return replace(
        config,
        served_name=config.served_name or _default_name(config),
        device=str(specs[0].device),
        dtype=str(specs[0].dtype).removeprefix("torch."),
        num_threads=num_threads,
        max_model_len=memory.max_model_len,
        kv_cache_bytes=memory.num_bytes,
    )


def _sampling_defaults(config: EngineConfig) -> SamplingDefaults:
    uses_model = config.generation_config == "model"
    return read_sampling_defaults(Path(config.model)) if uses_model else SamplingDefaults()


def _default_name(config: EngineConfig) -> str:
    paths = (config.model, config.adapter)
    return "+".join(Path(path).resolve().name for path in paths if path is not None)


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
        sampling=_sampling_defaults(config),
        attention=attention,
    )
