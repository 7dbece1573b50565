"""The one table of module names: how model families call the parts of a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from steering.sites import Site


@dataclass(frozen=True, slots=True)
class Convention:
    """Names of the parts of a decoder; several families share one.

    `layers`, `embed` and `final_norm` are attributes of the trunk, `attn_write` is below `attn`,
    and the rest are attributes of a decoder layer. None means that there is no such part.

    Attributes:
        name: For messages.
        layers: The list of decoder layers.
        embed: The token embedding.
        final_norm: The norm before the language model head.
        norm1: The norm before attention.
        attn: The attention module.
        attn_write: Its output projection.
        attn_post_norm: A norm of the attention output before it is added to the residual.
        norm2: The norm before the MLP.
        mlp: The MLP or the mixture of experts, or its last map where its maps stand in the layer.
        mlp_write: Name, anywhere below `mlp`, of the matrices that write its output; None where
            `mlp` is itself that matrix.
        mlp_post_norm: A norm of the MLP output before it is added to the residual.
        mlp_first: The first map of an MLP whose maps stand in the layer itself.
        has_transposed_experts: Whether experts are stacked as [experts, d_in, d_out] by classes
            that do not say so themselves.
    """

    name: str
    layers: str
    embed: str
    final_norm: str
    norm1: str | None
    attn: str
    attn_write: str
    attn_post_norm: str | None
    norm2: str | None
    mlp: str
    mlp_write: str | None
    mlp_post_norm: str | None
    mlp_first: str | None = None
    has_transposed_experts: bool = False

    @property
    def has_shared_norm(self) -> bool:
        """Whether attention and MLP read one norm's output, and so run in parallel."""
        return self.norm1 is not None and self.norm2 is None

    @property
    def block_parts(self) -> tuple[str, ...]:
        """Attributes of a decoder layer that hold all of its parameters."""
        parts = (
            self.norm1,
            self.attn,
            self.attn_post_norm,
            self.norm2,
            self.mlp_first,
            self.mlp,
            self.mlp_post_norm,
        )
        return tuple(part for part in parts if part is not None)


# Where the trunk hangs below the causal language model, in the order of looking.
TRUNKS: Final = (
    "model",
    "transformer",
    "gpt_neox",
    "model.language_model",
    "language_model.model",
    "model.decoder",
)

# Attributes under which a decoder layer keeps the factor on what attention and MLP add to the
# residual stream, and the trunk the factor on the embedding.
RESIDUAL_MULTIPLIERS: Final = ("residual_multiplier", "residual_scale")
EMBEDDING_MULTIPLIER: Final = "embedding_multiplier"

_PRE_NORM: Final = Convention(
    name="pre-norm (Llama)",
    layers="layers",
    embed="embed_tokens",
    final_norm="norm",
    norm1="input_layernorm",
    attn="self_attn",
    attn_write="o_proj",
    attn_post_norm=None,
    norm2="post_attention_layernorm",  # by name a post-norm, in fact the norm before the MLP
    mlp="mlp",
    mlp_write="down_proj",
    mlp_post_norm=None,
)
_SANDWICH: Final = replace(
    _PRE_NORM,
    name="norms before and after (Gemma 2)",
    attn_post_norm="post_attention_layernorm",
    norm2="pre_feedforward_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
)
_GLM4: Final = replace(
    _PRE_NORM,
    name="norms before and after (GLM-4)",
    attn_post_norm="post_self_attn_layernorm",
    mlp_post_norm="post_mlp_layernorm",
)
_AFMOE: Final = replace(
    _SANDWICH,
    name="norms before and after (AFMoE)",
    norm2="pre_mlp_layernorm",
    mlp_post_norm="post_mlp_layernorm",
)
_HYPERCLOVAX: Final = replace(
    _PRE_NORM,
    name="norms before and after (HyperCLOVA X)",
    attn_post_norm="post_norm1",
    mlp_post_norm="post_norm2",
)
_POST_NORM: Final = replace(_SANDWICH, name="post-norm (OLMo-2)", norm1=None, norm2=None)
_APERTUS: Final = replace(
    _PRE_NORM,
    name="Apertus",
    norm1="attention_layernorm",
    norm2="feedforward_layernorm",
)
_STARCODER2: Final = replace(_PRE_NORM, name="StarCoder2", mlp_write="c_proj")
_VAULTGEMMA: Final = replace(_PRE_NORM, name="VaultGemma", norm2="pre_feedforward_layernorm")
_LLAMA4: Final = replace(_PRE_NORM, name="Llama 4", mlp="feed_forward", has_transposed_experts=True)
_GRANITE_MOE: Final = replace(_PRE_NORM, name="GraniteMoe", mlp="block_sparse_moe")
_GRANITE_DENSE: Final = replace(
    _PRE_NORM, name="Granite 4, dense", mlp="shared_mlp", mlp_write="output_linear"
)
_SHARED_NORM: Final = replace(_PRE_NORM, name="one norm for both (Cohere)", norm2=None)
_PHI: Final = replace(
    _SHARED_NORM,
    name="one norm for both (Phi)",
    final_norm="final_layernorm",
    attn_write="dense",
    mlp_write="fc2",
)
_PERSIMMON: Final = replace(
    _PRE_NORM,
    name="Persimmon",
    final_norm="final_layernorm",
    attn_write="dense",
    mlp_write="dense_4h_to_h",
)
_OPT: Final = replace(
    _PRE_NORM,
    name="OPT",
    final_norm="final_layer_norm",
    norm1="self_attn_layer_norm",
    attn_write="out_proj",
    norm2="final_layer_norm",
    mlp="fc2",
    mlp_write=None,
    mlp_first="fc1",
)
_GPT2: Final = Convention(
    name="GPT-2",
    layers="h",
    embed="wte",
    final_norm="ln_f",
    norm1="ln_1",
    attn="attn",
    attn_write="c_proj",
    attn_post_norm=None,
    norm2="ln_2",
    mlp="mlp",
    mlp_write="c_proj",
    mlp_post_norm=None,
)
_GPT_NEOX: Final = Convention(
    name="GPT-NeoX",
    layers="layers",
    embed="embed_in",
    final_norm="final_layer_norm",
    norm1="input_layernorm",
    attn="attention",
    attn_write="dense",
    attn_post_norm=None,
    norm2="post_attention_layernorm",
    mlp="mlp",
    mlp_write="dense_4h_to_h",
    mlp_post_norm=None,
)

# No model fits two of them: the parts named must be there, and no others may hold parameters.
CONVENTIONS: Final = (
    _PRE_NORM,
    _SANDWICH,
    _POST_NORM,
    _GLM4,
    _AFMOE,
    _HYPERCLOVAX,
    _APERTUS,
    _STARCODER2,
    _VAULTGEMMA,
    _LLAMA4,
    _GRANITE_MOE,
    _GRANITE_DENSE,
    _SHARED_NORM,
    _PHI,
    _PERSIMMON,
    _OPT,
    _GPT2,
    _GPT_NEOX,
)

# Call attention through transformers' interface, though their class does not say so.
SILENT_FAMILIES: Final = frozenset({"stablelm"})

# By `model_type` of the text configuration. Families not listed are tried with every convention.
FAMILY_CONVENTIONS: Final[Mapping[str, Convention]] = MappingProxyType(
    {
        "afmoe": _AFMOE,
        "apertus": _APERTUS,
        "cohere": _SHARED_NORM,
        "cohere2": _SHARED_NORM,
        "gemma": _PRE_NORM,
        "gemma2": _SANDWICH,
        "gemma3_text": _SANDWICH,
        "glm4": _GLM4,
        "gpt2": _GPT2,
        "gpt_bigcode": _GPT2,
        "gpt_neox": _GPT_NEOX,
        "gpt_oss": _PRE_NORM,
        "granite": _PRE_NORM,
        "granitemoe": _GRANITE_MOE,
        "granitemoehybrid": _GRANITE_DENSE,
        "hyperclovax": _HYPERCLOVAX,
        "llama": _PRE_NORM,
        "llama4_text": _LLAMA4,
        "mistral": _PRE_NORM,
        "mixtral": _PRE_NORM,
        "olmo2": _POST_NORM,
        "opt": _OPT,
        "persimmon": _PERSIMMON,
        "phi": _PHI,
        "phi3": _PRE_NORM,
        "qwen2": _PRE_NORM,
        "qwen3": _PRE_NORM,
        "qwen3_moe": _PRE_NORM,
        "starcoder2": _STARCODER2,
        "vaultgemma": _VAULTGEMMA,
    }
)

_SCALED_EMBEDDING: Final = {Site.EMBED: "after the scaling of the embedding by sqrt(hidden_size)"}
_BEFORE_POSITIONS: Final = {Site.EMBED: "before the position embedding is added"}

# What to know of a site beyond its name; detection adds what follows from the convention.
FAMILY_NOTES: Final[Mapping[str, Mapping[Site, str]]] = MappingProxyType(
    {
        "gemma": _SCALED_EMBEDDING,
        "gemma2": _SCALED_EMBEDDING,
        "gemma3_text": _SCALED_EMBEDDING,
        "gpt2": _BEFORE_POSITIONS,
        "gpt_bigcode": _BEFORE_POSITIONS,
        "opt": _BEFORE_POSITIONS,
        "vaultgemma": _SCALED_EMBEDDING,
    }
)
