"""The one table of module names: how model families call the parts of a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
        mlp: The MLP or the mixture of experts.
        mlp_write: Name, anywhere below `mlp`, of the matrices that write its output.
        mlp_post_norm: A norm of the MLP output before it is added to the residual.
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
    mlp_write: str
    mlp_post_norm: str | None

    @property
    def block_parts(self) -> tuple[str, ...]:
        """Attributes of a decoder layer that hold all of its parameters."""
        parts = (
            self.norm1,
            self.attn,
            self.attn_post_norm,
            self.norm2,
            self.mlp,
            self.mlp_post_norm,
        )
        return tuple(part for part in parts if part is not None)


# Where the trunk hangs below the causal language model, in the order of looking.
TRUNKS: Final = ("model", "transformer", "gpt_neox", "model.language_model", "language_model.model")

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
_SANDWICH: Final = Convention(
    name="norms before and after (Gemma 2)",
    layers="layers",
    embed="embed_tokens",
    final_norm="norm",
    norm1="input_layernorm",
    attn="self_attn",
    attn_write="o_proj",
    attn_post_norm="post_attention_layernorm",
    norm2="pre_feedforward_layernorm",
    mlp="mlp",
    mlp_write="down_proj",
    mlp_post_norm="post_feedforward_layernorm",
)
_POST_NORM: Final = Convention(
    name="post-norm (OLMo-2)",
    layers="layers",
    embed="embed_tokens",
    final_norm="norm",
    norm1=None,
    attn="self_attn",
    attn_write="o_proj",
    attn_post_norm="post_attention_layernorm",
    norm2=None,
    mlp="mlp",
    mlp_write="down_proj",
    mlp_post_norm="post_feedforward_layernorm",
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
CONVENTIONS: Final = (_PRE_NORM, _SANDWICH, _POST_NORM, _GPT2, _GPT_NEOX)

# By `model_type` of the text configuration. Families not listed are tried with every convention.
FAMILY_CONVENTIONS: Final[Mapping[str, Convention]] = MappingProxyType(
    {
        "gemma": _PRE_NORM,
        "gemma2": _SANDWICH,
        "gemma3_text": _SANDWICH,
        "gpt2": _GPT2,
        "gpt_neox": _GPT_NEOX,
        "llama": _PRE_NORM,
        "mistral": _PRE_NORM,
        "mixtral": _PRE_NORM,
        "olmo2": _POST_NORM,
        "phi3": _PRE_NORM,
        "qwen2": _PRE_NORM,
        "qwen3": _PRE_NORM,
        "qwen3_moe": _PRE_NORM,
    }
)

_SCALED_EMBEDDING: Final = {Site.EMBED: "after the scaling of the embedding by sqrt(hidden_size)"}

# What to know of a site beyond its name; detection adds what follows from the convention.
FAMILY_NOTES: Final[Mapping[str, Mapping[Site, str]]] = MappingProxyType(
    {
        "gemma": _SCALED_EMBEDDING,
        "gemma2": _SCALED_EMBEDDING,
        "gemma3_text": _SCALED_EMBEDDING,
        "gpt2": {Site.EMBED: "before the position embedding is added"},
    }
)
