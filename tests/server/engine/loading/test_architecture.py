"""What cannot be served is refused in one line that says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import CONFIG_MAPPING

from server.engine.loading.architecture import read_config
from steering.errors import SteeringError, UnsupportedArchitectureError
from tests.models.families import FAMILIES_BY_NAME, family_model
from tests.models.tiny import GROUPED
from tests.server.engine.harness import load_tiny_model

# Configurations as in real checkpoints: kinds of layers that keep more than keys and values.
OTHER_LAYERS: dict[str, tuple[dict[str, Any], str]] = {
    "mamba": ({}, "linear_attention"),
    "falcon_h1": ({}, "hybrid"),
    "qwen3_next": ({}, "linear_attention"),
    "qwen3_5_text": ({}, "linear_attention"),
    "jamba": ({}, "linear_attention"),
    "nemotron_h": ({}, "linear_attention"),
    "lfm2": ({"full_attn_idxs": [1]}, "conv"),
    "minimax": ({}, "linear_attention"),
    "granitemoehybrid": (
        {"layer_types": ["mamba", "attention"] * 2, "mamba_n_heads": 4},
        "linear_attention",
    ),
    "glm_moe_dsa": ({}, "indexed_attention"),
}
OWN_ATTENTION = ("falcon", "bloom", "mpt", "gptj", "codegen", "rwkv", "xlstm")


def read(path: Path, model_type: str, **fields: Any) -> Any:
    """Read a configuration that was written with the fields given."""
    CONFIG_MAPPING[model_type](**fields).save_pretrained(path)
    return read_config(path)


@pytest.mark.parametrize("model_type", OTHER_LAYERS)
def test_layers_that_keep_more_than_keys_are_named(model_type: str, tmp_path: Path) -> None:
    fields, kind = OTHER_LAYERS[model_type]
    with pytest.raises(UnsupportedArchitectureError, match=f"layers of the kind .*'{kind}'") as e:
        read(tmp_path, model_type, **{**GROUPED, **fields})
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("model_type", OWN_ATTENTION)
def test_attention_in_code_of_its_own_is_refused(model_type: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedArchitectureError, match="ForCausalLM is not a causal"):
        read(tmp_path, model_type)


def test_what_is_no_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedArchitectureError, match=r"^vit is not a causal"):
        read(tmp_path, "vit")


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("opt", {"do_layer_norm_before": False}, "no model.decoder.final_layer_norm"),
        ("opt", {"word_embed_proj_dim": 16}, "the embedding is 16 wide, not 32"),
        ("granite4_dense", {"num_local_experts": 2}, "layer 0 also has block_sparse_moe"),
    ],
)
def test_variants_without_a_place_for_a_site_are_refused(
    name: str, fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SteeringError, match=message):
        load_tiny_model(family_model(name, **fields), tmp_path)


@pytest.mark.parametrize("name", ["qwen2", "stablelm", "granite4_dense", "llama4"])
def test_what_can_be_served_is_read(name: str, tmp_path: Path) -> None:
    family = FAMILIES_BY_NAME[name]
    config = read(tmp_path, family.model_type, **family.fields)
    assert config.model_type == family.model_type
