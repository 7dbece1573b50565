"""Where families compute each site, written by hand from the modeling code.

Not from `steering.layout`, which tests compare with it. `{}` stands for the layer. Of `heads` and
`resid_pre` there is no entry: they go into the module of `attn_out`, and into the layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from steering.sites import Site

__all__ = ["GPT2", "GPT_NEOX", "LLAMA", "OLMO2", "SANDWICH", "Paths", "parallel", "renamed"]

Paths = Mapping[Site, str]

LLAMA: Final[Paths] = MappingProxyType(
    {
        Site.NORM1: "model.layers.{}.input_layernorm",
        Site.ATTN_OUT: "model.layers.{}.self_attn.o_proj",
        Site.RESID_MID: "model.layers.{}.self_attn.o_proj",
        Site.NORM2: "model.layers.{}.post_attention_layernorm",
        Site.MLP_OUT: "model.layers.{}.mlp",
        Site.RESID_POST: "model.layers.{}",
        Site.EMBED: "model.embed_tokens",
    }
)
# shifting what is added to the residual shifts resid_mid, so a post-norm's output stands for it
SANDWICH: Final[Paths] = {
    **LLAMA,
    Site.NORM2: "model.layers.{}.pre_feedforward_layernorm",
    Site.RESID_MID: "model.layers.{}.post_attention_layernorm",
}
OLMO2: Final[Paths] = {
    site: path for site, path in SANDWICH.items() if site not in {Site.NORM1, Site.NORM2}
}
GPT2: Final[Paths] = {
    Site.NORM1: "transformer.h.{}.ln_1",
    Site.ATTN_OUT: "transformer.h.{}.attn.c_proj",
    Site.RESID_MID: "transformer.h.{}.attn.c_proj",
    Site.NORM2: "transformer.h.{}.ln_2",
    Site.MLP_OUT: "transformer.h.{}.mlp.c_proj",
    Site.RESID_POST: "transformer.h.{}",
    Site.EMBED: "transformer.wte",
}
GPT_NEOX: Final[Paths] = {
    Site.NORM1: "gpt_neox.layers.{}.input_layernorm",
    Site.ATTN_OUT: "gpt_neox.layers.{}.attention.dense",
    Site.RESID_MID: "gpt_neox.layers.{}.attention.dense",
    Site.NORM2: "gpt_neox.layers.{}.post_attention_layernorm",
    Site.MLP_OUT: "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    Site.RESID_POST: "gpt_neox.layers.{}",
    Site.EMBED: "gpt_neox.embed_in",
}


def renamed(paths: Paths, **names: str) -> Paths:
    """Other names below the layer for the sites given, as `norm1="attention_layernorm"`."""
    own = {Site(site): f"model.layers.{{}}.{name}" for site, name in names.items()}
    if "attn_out" in names and paths[Site.RESID_MID] == paths[Site.ATTN_OUT]:
        own.setdefault(Site.RESID_MID, own[Site.ATTN_OUT])
    return {**paths, **own}


def parallel(paths: Paths, *, has_norm2: bool = False) -> Paths:
    """Without the sites that a layer with attention and MLP in parallel does not have."""
    absent = {Site.RESID_MID} if has_norm2 else {Site.RESID_MID, Site.NORM2}
    return {site: path for site, path in paths.items() if site not in absent}
