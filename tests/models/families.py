"""The families that docs/models.md lists, with the switches of their real checkpoints on.

Sizes are tiny; every switch that changes what is computed has the value of the checkpoints named.
Windows, chunks and floors are 8 tokens, so that prompts of tests reach beyond them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from steering.sites import Site

from .paths import GPT2, GPT_NEOX, LLAMA, OLMO2, SANDWICH, Paths, parallel, renamed
from .tiny import GROUPED as FOUR_LAYERS
from .tiny import TOKENS, WINDOW, draw_weights

__all__ = ["FAMILIES_BY_NAME", "Family", "family_model"]

# Two layers are enough to have each kind once.
GROUPED: Final[Mapping[str, Any]] = {**FOUR_LAYERS, "num_hidden_layers": 2}
# Heads wider than hidden_size / num_heads: the widths of `heads` and of the residual differ.
WIDE_HEADS: Final[Mapping[str, Any]] = {**GROUPED, "head_dim": 16}
ALTERNATING: Final = ["sliding_attention", "full_attention"]

_GRANITE: Final[Mapping[str, Any]] = {
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.015625,
    "logits_scaling": 8.0,
    "tie_word_embeddings": True,
}
_EXPERTS: Final[Mapping[str, Any]] = {"num_local_experts": 4, "num_experts_per_tok": 2}
_ROUTED: Final[Mapping[str, Any]] = {
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
}
_LATENT: Final[Mapping[str, Any]] = {
    **GROUPED,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
}
_LLAMA3_ROPE: Final[Mapping[str, Any]] = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_YARN: Final[Mapping[str, Any]] = {
    "rope_type": "yarn",
    "rope_theta": 150_000.0,
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 16,
}


def _partial(share: float, theta: float = 10_000.0) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": share}
    return {"rope_parameters": rope, "partial_rotary_factor": share}


@dataclass(frozen=True)
class Family:
    """A tiny model of a family as its real checkpoints are.

    Attributes:
        model_type: Of its configuration.
        checkpoints: Models that people have of it.
        switches: What of it is out of the ordinary, and on here.
        fields: Of its configuration.
        paths: Where it computes each site, written by hand.
    """

    model_type: str
    checkpoints: str
    switches: str
    fields: Mapping[str, Any]
    paths: Paths = field(default_factory=lambda: LLAMA)


FAMILIES_BY_NAME: Final[Mapping[str, Family]] = {
    "llama": Family(
        "llama",
        "Llama 2 to 3.3, SmolLM 1 and 2, Falcon 3, Yi, TinyLlama",
        "llama3 rotary scaling, grouped heads",
        {**GROUPED, "rope_parameters": _LLAMA3_ROPE},
    ),
    "qwen2": Family("qwen2", "Qwen 1.5 to 2.5", "query, key and value biases", GROUPED),
    "qwen3": Family("qwen3", "Qwen 3", "norms of queries and keys, wide heads", WIDE_HEADS),
    "qwen3_moe": Family(
        "qwen3_moe",
        "Qwen 3 30B-A3B, Coder",
        "experts, a dense layer between",
        {
            **WIDE_HEADS,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "norm_topk_prob": True,
            "mlp_only_layers": [0],
        },
    ),
    "qwen2_moe": Family(
        "qwen2_moe",
        "Qwen 1.5 MoE",
        "a gated shared expert",
        {
            **GROUPED,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 24,
        },
    ),
    "mistral": Family(
        "mistral",
        "Mistral 7B, Nemo, Small",
        "sliding window",
        {**GROUPED, "sliding_window": WINDOW},
    ),
    "ministral": Family(
        "ministral",
        "Ministral 8B",
        "alternating windows",
        {**WIDE_HEADS, "sliding_window": WINDOW, "layer_types": ALTERNATING},
    ),
    "ministral3": Family(
        "ministral3",
        "Ministral 3",
        "yarn, queries scaled by position",
        {
            **WIDE_HEADS,
            "rope_parameters": {
                **_YARN,
                "llama_4_scaling_beta": 0.1,
                "original_max_position_embeddings": WINDOW,
            },
        },
    ),
    "mixtral": Family("mixtral", "Mixtral 8x7B, 8x22B", "experts", {**GROUPED, **_EXPERTS}),
    "gemma": Family("gemma", "Gemma 1", "scaled embedding", WIDE_HEADS),
    "gemma2": Family(
        "gemma2",
        "Gemma 2",
        "norms before and after, soft caps, alternating windows",
        {
            **WIDE_HEADS,
            "sliding_window": WINDOW,
            "layer_types": ALTERNATING,
            "query_pre_attn_scalar": 16,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 10.0,
        },
        SANDWICH,
    ),
    "gemma3": Family(
        "gemma3_text",
        "Gemma 3 (also the text part of multimodal ones)",
        "norms before and after, two rotary bases",
        {**WIDE_HEADS, "sliding_window": WINDOW, "layer_types": ALTERNATING},
        SANDWICH,
    ),
    "vaultgemma": Family(
        "vaultgemma",
        "VaultGemma",
        "alternating windows, scaled embedding",
        {**WIDE_HEADS, "sliding_window": WINDOW, "layer_types": ALTERNATING},
        renamed(LLAMA, norm2="pre_feedforward_layernorm"),
    ),
    "phi": Family(
        "phi",
        "Phi 1, 1.5, 2",
        "attention and MLP in parallel behind one norm, partial rotary, biases",
        {**GROUPED, **_partial(0.5)},
        parallel(renamed(LLAMA, attn_out="self_attn.dense")),
    ),
    "phi3": Family(
        "phi3",
        "Phi 3, 3.5 mini, 4, 4 mini",
        "fused projections, partial rotary, sliding window",
        {**GROUPED, "sliding_window": WINDOW, **_partial(0.75)},
    ),
    "phimoe": Family(
        "phimoe",
        "Phi 3.5 MoE",
        "experts, biased norms",
        {**GROUPED, **_EXPERTS, "attention_bias": True},
    ),
    "gpt_oss": Family(
        "gpt_oss",
        "gpt-oss 20B, 120B (bfloat16)",
        "attention sinks, alternating windows, experts with biases, yarn",
        {
            **WIDE_HEADS,
            **_EXPERTS,
            "sliding_window": WINDOW,
            "layer_types": ALTERNATING,
            "attention_bias": True,
            "rope_parameters": _YARN,
        },
    ),
    "granite": Family(
        "granite",
        "Granite 3 to 3.3",
        "factors on embedding 12, residual 0.22, attention 1/64, logits 1/8",
        {**GROUPED, **_GRANITE},
    ),
    "granitemoe": Family(
        "granitemoe",
        "Granite 3 1B-A400M, 3B-A800M",
        "the same factors, experts",
        {**GROUPED, **_GRANITE, **_EXPERTS},
        renamed(LLAMA, mlp_out="block_sparse_moe"),
    ),
    "granite4_dense": Family(
        "granitemoehybrid",
        "Granite 4 350M, 1B, Micro (without `-H-`)",
        "the same factors, no experts, no Mamba layers",
        {
            **GROUPED,
            **_GRANITE,
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
            "shared_intermediate_size": 48,
            "layer_types": ["full_attention"] * 2,
            "position_embedding_type": "rope",
            "mamba_n_heads": 4,
        },
        renamed(LLAMA, mlp_out="shared_mlp"),
    ),
    "cohere": Family(
        "cohere",
        "Command R, R+, Aya 23, Expanse",
        "parallel behind one norm, logits times 1/16, norms of queries and keys",
        {**GROUPED, "logit_scale": 0.0625, "use_qk_norm": True, "tie_word_embeddings": True},
        parallel(LLAMA),
    ),
    "cohere2": Family(
        "cohere2",
        "Command R7B, Command A",
        "parallel behind one norm, windows with rotary and full layers without, logits times 1/4",
        {
            **GROUPED,
            "logit_scale": 0.25,
            "sliding_window": WINDOW,
            "layer_types": ALTERNATING,
            "tie_word_embeddings": True,
        },
        parallel(LLAMA),
    ),
    "glm": Family("glm", "GLM-4 9B (2024)", "partial rotary", {**WIDE_HEADS, **_partial(0.5)}),
    "glm4": Family(
        "glm4",
        "GLM-4 0414, GLM-Z1",
        "norms before and after, partial rotary, biases",
        {**WIDE_HEADS, "attention_bias": True, **_partial(0.5)},
        renamed(LLAMA, norm2="post_attention_layernorm", resid_mid="post_self_attn_layernorm"),
    ),
    "glm4_moe": Family(
        "glm4_moe",
        "GLM-4.5, 4.6",
        "routed and shared experts, partial rotary",
        {**WIDE_HEADS, **_ROUTED, "use_qk_norm": True, "attention_bias": True, **_partial(0.5)},
    ),
    "starcoder2": Family(
        "starcoder2",
        "StarCoder 2",
        "biases, layer norms, sliding window",
        {**GROUPED, "sliding_window": WINDOW, "use_bias": True},
    ),
    "gpt_bigcode": Family(
        "gpt_bigcode",
        "StarCoder 1, SantaCoder",
        "one key head for all, learned positions",
        {**TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "n_inner": 48},
        GPT2,
    ),
    "apertus": Family(
        "apertus",
        "Apertus 8B, 70B",
        "xIELU, norms of queries and keys, llama3 rotary scaling",
        {**GROUPED, "hidden_act": "xielu", "rope_parameters": _LLAMA3_ROPE},
        renamed(LLAMA, norm1="attention_layernorm", norm2="feedforward_layernorm"),
    ),
    "opt": Family(
        "opt",
        "OPT, all but 350M",
        "learned positions from 2 on, MLP without a module of its own",
        {
            **TOKENS,
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": 512,
        },
        {
            Site.NORM1: "model.decoder.layers.{}.self_attn_layer_norm",
            Site.ATTN_OUT: "model.decoder.layers.{}.self_attn.out_proj",
            Site.RESID_MID: "model.decoder.layers.{}.self_attn.out_proj",
            Site.NORM2: "model.decoder.layers.{}.final_layer_norm",
            Site.MLP_OUT: "model.decoder.layers.{}.fc2",
            Site.RESID_POST: "model.decoder.layers.{}",
            Site.EMBED: "model.decoder.embed_tokens",
        },
    ),
    "stablelm": Family(
        "stablelm",
        "StableLM 3B, 2 1.6B",
        "partial rotary, biases, layer norms",
        {**GROUPED, "use_qkv_bias": True, **_partial(0.25)},
    ),
    "stablelm_parallel": Family(
        "stablelm",
        "StableLM 2 12B",
        "parallel behind one norm, norms of queries and keys",
        {**GROUPED, "use_parallel_residual": True, "qk_layernorm": True, **_partial(0.25)},
        parallel(LLAMA),
    ),
    "llama4": Family(
        "llama4_text",
        "Llama 4 Scout, Maverick (text part)",
        "chunks, layers without rotary whose queries are scaled by position, norms of queries and "
        "keys, experts every other layer",
        {
            **WIDE_HEADS,
            **_EXPERTS,
            "num_experts_per_tok": 1,
            "intermediate_size_mlp": 48,
            "interleave_moe_layer_step": 2,
            "attention_chunk_size": WINDOW,
            "no_rope_layers": [1, 0],
            "layer_types": ["chunked_attention", "full_attention"],
            "attn_temperature_tuning": True,
            "floor_scale": WINDOW,
            "attn_scale": 0.1,
            "use_qk_norm": True,
        },
        renamed(LLAMA, mlp_out="feed_forward"),
    ),
    "gpt2": Family(
        "gpt2",
        "GPT-2, GPT-SW3",
        "learned positions, transposed weights",
        {**TOKENS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
        GPT2,
    ),
    "gpt_neox": Family(
        "gpt_neox",
        "Pythia, GPT-NeoX 20B",
        "attention and MLP in parallel behind two norms, partial rotary",
        {
            **TOKENS,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 512,
            "rotary_pct": 0.25,
        },
        parallel(GPT_NEOX, has_norm2=True),
    ),
    "persimmon": Family(
        "persimmon",
        "Persimmon 8B",
        "squared ReLU, partial rotary, norms of queries and keys",
        {**GROUPED, "qk_layernorm": True, **_partial(0.5)},
        renamed(LLAMA, attn_out="self_attn.dense"),
    ),
    "olmo": Family("olmo", "OLMo 1", "norms without weights", {**GROUPED, "clip_qkv": 0.5}),
    "olmo2": Family("olmo2", "OLMo 2", "norms after attention and MLP only", GROUPED, OLMO2),
    "olmo3": Family(
        "olmo3",
        "OLMo 3",
        "the same, alternating windows",
        {**GROUPED, "sliding_window": WINDOW, "layer_types": ALTERNATING},
        OLMO2,
    ),
    "olmoe": Family(
        "olmoe",
        "OLMoE",
        "experts",
        {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": False},
    ),
    "smollm3": Family(
        "smollm3",
        "SmolLM 3",
        "every other layer without rotary",
        {**GROUPED, "no_rope_layers": [1, 0]},
    ),
    "exaone4": Family(
        "exaone4",
        "EXAONE 4",
        "norms after, windows and layers without rotary",
        {**GROUPED, "sliding_window": WINDOW, "layer_types": ALTERNATING},
        renamed(OLMO2, resid_mid="post_attention_layernorm"),
    ),
    "nemotron": Family(
        "nemotron",
        "Nemotron 4, Minitron",
        "squared ReLU, norms at 1 + weight, partial rotary",
        {**WIDE_HEADS, "hidden_act": "relu2", **_partial(0.5)},
    ),
    "deepseek_v2": Family(
        "deepseek_v2",
        "DeepSeek V2, V2 Lite",
        "latent keys and values, routed and shared experts",
        {**_LATENT, **_ROUTED},
    ),
    "deepseek_v3": Family(
        "deepseek_v3",
        "DeepSeek V3, R1, Moonlight",
        "latent keys and values, grouped routing with bias",
        {**_LATENT, **_ROUTED, "n_group": 2, "topk_group": 1},
    ),
    "minicpm3": Family(
        "minicpm3",
        "MiniCPM 3",
        "latent keys and values, factors on embedding, residual and logits",
        {**_LATENT, "scale_emb": 12, "scale_depth": 0.25, "dim_model_base": 16},
    ),
    "hunyuan": Family(
        "hunyuan_v1_dense", "Hunyuan 0.5B to 7B", "norms of queries and keys", WIDE_HEADS
    ),
    "ernie4_5": Family(
        "ernie4_5", "ERNIE 4.5 0.3B", "interleaved rotary", {**WIDE_HEADS, "use_bias": False}
    ),
    "seed_oss": Family(
        "seed_oss", "Seed-OSS 36B", "biases", {**WIDE_HEADS, "attention_bias": True}
    ),
    "hyperclovax": Family(
        "hyperclovax",
        "HyperCLOVA X SEED Think",
        "norms before and after, factors as Granite's",
        {**GROUPED, **_GRANITE, "use_post_norm": True},
        renamed(LLAMA, resid_mid="post_norm1"),
    ),
    "afmoe": Family(
        "afmoe",
        "Trinity Nano, Mini",
        "norms before and after, gated attention, windows, experts",
        {
            **WIDE_HEADS,
            "sliding_window": WINDOW,
            "layer_types": ALTERNATING,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "num_shared_experts": 1,
            "num_dense_layers": 1,
            "moe_intermediate_size": 24,
            "mup_enabled": True,
        },
        {**SANDWICH, Site.NORM2: "model.layers.{}.pre_mlp_layernorm"},
    ),
}


def family_model(
    name: str, seed: int = 0, dtype: torch.dtype = torch.float32, **overrides: Any
) -> PreTrainedModel:
    """A tiny model of the family, in evaluation mode, the same for the same seed.

    `overrides` replace fields of its configuration.
    """
    family = FAMILIES_BY_NAME[name]
    config = CONFIG_MAPPING[family.model_type](**{**family.fields, **overrides})
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    draw_weights(model, seed)
    return model.eval()
