"""Real transformers architectures, a few thousand parameters each, built from a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

__all__ = [
    "ALTERNATING",
    "BOS_ID",
    "FAMILIES",
    "GROUPED",
    "IM_END_ID",
    "IM_START_ID",
    "MOE_FAMILIES",
    "PAD_ID",
    "REFUSED_FAMILIES",
    "TOKENS",
    "VOCAB_SIZE",
    "WIDE_HEADS",
    "WINDOW",
    "draw_weights",
    "tiny_config",
    "tiny_model",
]

# 256 bytes, then the special tokens of tests/models/checkpoint.py
BOS_ID: Final = 256
IM_START_ID: Final = 257
IM_END_ID: Final = 258
PAD_ID: Final = 259
VOCAB_SIZE: Final = 260

_LAYERS: Final = 4
_HIDDEN: Final = 32
WINDOW: Final = 8

TOKENS: Final[dict[str, Any]] = {
    "vocab_size": VOCAB_SIZE,
    "bos_token_id": BOS_ID,
    "eos_token_id": IM_END_ID,
    "pad_token_id": PAD_ID,
}
GROUPED: Final[dict[str, Any]] = {
    **TOKENS,
    "hidden_size": _HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
# Heads wider than hidden_size / num_heads, as in the real ones: `heads` and the residual differ.
WIDE_HEADS: Final[dict[str, Any]] = {**GROUPED, "head_dim": 16}
_GPT_NEOX: Final[dict[str, Any]] = {
    **TOKENS,
    "hidden_size": _HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
ALTERNATING: Final = ["sliding_attention", "full_attention"] * (_LAYERS // 2)

_CONFIGS: Final[Mapping[str, tuple[type[PreTrainedConfig], dict[str, Any]]]] = {
    "llama": (LlamaConfig, GROUPED),
    "llama_biased": (LlamaConfig, {**GROUPED, "attention_bias": True, "mlp_bias": True}),
    "mistral": (MistralConfig, {**GROUPED, "sliding_window": WINDOW}),
    "qwen2": (Qwen2Config, GROUPED),
    "qwen3": (Qwen3Config, WIDE_HEADS),
    "gemma": (GemmaConfig, WIDE_HEADS),
    "gemma2": (
        Gemma2Config,
        {
            **WIDE_HEADS,
            "sliding_window": WINDOW,
            "layer_types": ALTERNATING,
            "query_pre_attn_scalar": 16,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 10.0,
        },
    ),
    "gemma3": (
        Gemma3TextConfig,
        {
            **WIDE_HEADS,
            "sliding_window": WINDOW,
            "layer_types": ALTERNATING,
            "query_pre_attn_scalar": 16,
        },
    ),
    "phi3": (Phi3Config, {**GROUPED, "sliding_window": WINDOW}),
    "olmo2": (Olmo2Config, GROUPED),
    "gpt2": (
        GPT2Config,
        {**TOKENS, "n_embd": _HIDDEN, "n_layer": _LAYERS, "n_head": 4, "n_positions": 512},
    ),
    "gpt_neox": (GPTNeoXConfig, _GPT_NEOX),
    "gpt_neox_sequential": (GPTNeoXConfig, {**_GPT_NEOX, "use_parallel_residual": False}),
    "mixtral": (
        MixtralConfig,
        {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "qwen3_moe": (
        Qwen3MoeConfig,
        {
            **WIDE_HEADS,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "norm_topk_prob": True,
            "mlp_only_layers": [1],  # one dense layer between sparse ones
        },
    ),
    "falcon": (
        FalconConfig,
        {
            **TOKENS,
            "hidden_size": _HIDDEN,
            "num_hidden_layers": _LAYERS,
            "num_attention_heads": 4,
        },
    ),
}

REFUSED_FAMILIES: Final = ("falcon",)
MOE_FAMILIES: Final = ("mixtral", "qwen3_moe")
FAMILIES: Final = tuple(name for name in _CONFIGS if name not in REFUSED_FAMILIES)


def tiny_config(family: str, **overrides: Any) -> PreTrainedConfig:
    """The configuration of a family's tiny model; `overrides` replace its fields."""
    config_class, fields = _CONFIGS[family]
    return config_class(**{**fields, **overrides})


def tiny_model(
    family: str, seed: int = 0, dtype: torch.dtype = torch.float32, **overrides: Any
) -> PreTrainedModel:
    """A tiny causal language model of `family`, in evaluation mode, the same for the same seed.

    Args:
        family: One of FAMILIES or REFUSED_FAMILIES.
        seed: Of its weights; the global generator is left as it was.
        dtype: Of its weights, which are drawn in float32.
        overrides: Fields of its configuration.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)  # what a model initialises by itself; the rest is drawn below
        # not `.to(dtype)` afterwards: a loaded model keeps its rotary frequencies in float32
        model = AutoModelForCausalLM.from_config(tiny_config(family, **overrides), dtype=dtype)
    draw_weights(model, seed)
    return model.eval()


@torch.no_grad()
def draw_weights(model: nn.Module, seed: int) -> None:
    """Draw weights large enough that attention, experts and edits visibly change the logits."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            # norms stay near their identity, biases near zero
            parameter.copy_(parameter.float() + 0.1 * noise)
        elif "embed" in name or "wte" in name or "wpe" in name:
            parameter.copy_(0.5 * noise)
        else:
            parameter.copy_(noise * parameter.shape[-1] ** -0.5)
