"""The architecture map: what it finds, what it knows to be missing, what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    Olmo3Config,
    PreTrainedModel,
    SmolLM3Config,
)

from steering.errors import UnsupportedArchitectureError
from steering.layout import detect_layout
from steering.layout.conventions import CONVENTIONS, FAMILY_CONVENTIONS
from steering.layout.detection import _build, _Mismatch
from steering.sites import Site, SitePoint
from tests.models import FAMILIES, MOE_FAMILIES, VOCAB_SIZE, tiny_config, tiny_model
from tests.models.families import family_model

PARALLEL = {Site.RESID_MID}
WITHOUT_PRE_NORMS = {Site.NORM1, Site.NORM2}
UNAVAILABLE = {"gpt_neox": PARALLEL, "olmo2": WITHOUT_PRE_NORMS}
POST_NORMED = {"gemma2", "gemma3", "olmo2"}
SMALL = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_agree_with_the_configuration(family: str) -> None:
    model = tiny_model(family)
    layout = detect_layout(model)
    config = model.config
    assert layout.family == config.model_type
    assert layout.num_layers == config.num_hidden_layers == 4
    assert layout.hidden_size == config.hidden_size == 32
    assert layout.num_heads == config.num_attention_heads == 4
    assert layout.head_dim == (getattr(config, "head_dim", None) or 8)
    assert layout.width(Site.HEADS) == layout.num_heads * layout.head_dim
    assert layout.width(Site.RESID_POST) == 32
    assert set(layout.layer_devices) == {0, 1, 2, 3}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_family_lacks_or_does_differently_is_said(family: str) -> None:
    layout = detect_layout(tiny_model(family))
    assert set(layout.unavailable_sites) == UNAVAILABLE.get(family, set())
    assert layout.has_parallel_residual == (family == "gpt_neox")
    for site in (Site.ATTN_OUT, Site.MLP_OUT):
        assert (site in layout.notes) == (family in POST_NORMED)
    assert (Site.EMBED in layout.notes) == (family.startswith("gemma") or family == "gpt2")


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_write_matrices_compute_what_their_modules_do(family: str) -> None:
    layout = detect_layout(tiny_model(family))
    by_point: dict[SitePoint, int] = {}
    for matrix in layout.write_matrices:
        by_point[matrix.point] = by_point.get(matrix.point, 0) + 1
        assert matrix.weight.shape[-2] == layout.hidden_size
        if matrix.point.site is Site.EMBED:
            assert matrix.weight.shape == (layout.hidden_size, VOCAB_SIZE)
        elif matrix.weight.ndim == 2:
            hidden = torch.randn(3, matrix.weight.shape[-1])
            expected = hidden @ matrix.weight.T
            if matrix.bias is not None:
                expected = expected + matrix.bias
            torch.testing.assert_close(matrix.module(hidden), expected)
    points = {SitePoint(i, site) for i in range(4) for site in (Site.ATTN_OUT, Site.MLP_OUT)}
    assert by_point == dict.fromkeys(points | {SitePoint(0, Site.EMBED)}, 1)


@pytest.mark.parametrize("family", MOE_FAMILIES)
def test_experts_are_one_stack_of_matrices(family: str) -> None:
    layout = detect_layout(tiny_model(family))
    stacks = [m.weight.shape[0] for m in layout.write_matrices if m.weight.ndim == 3]
    assert stacks == [4] * (4 if family == "mixtral" else 3)  # Qwen3-MoE's layer 1 is dense


@pytest.mark.parametrize("family", FAMILIES)
def test_write_bias_means(family: str) -> None:
    model = tiny_model(family)
    means = detect_layout(model).write_bias_means
    if family == "gpt2":
        expected = model.transformer.h[2].mlp.c_proj.bias.mean().item()
    elif family.startswith("gpt_neox"):
        expected = model.gpt_neox.layers[2].mlp.dense_4h_to_h.bias.mean().item()
    elif family == "llama_biased":
        expected = model.model.layers[2].mlp.down_proj.bias.mean().item()
    else:
        assert means == {}
        return
    assert len(means) == 8
    assert means[SitePoint(2, Site.MLP_OUT)] == pytest.approx(expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_exactly_one_convention_fits(family: str) -> None:
    model = tiny_model(family)
    fitting = []
    for convention in CONVENTIONS:
        try:
            _build(model, model.config, family, convention)
        except _Mismatch:
            continue
        fitting.append(convention)
    assert fitting == [FAMILY_CONVENTIONS[model.config.model_type]]


@pytest.mark.parametrize("config_class", [SmolLM3Config, Olmo3Config])
def test_an_unlisted_family_is_found_by_its_structure(config_class: type) -> None:
    config = config_class(**SMALL)
    assert config.model_type not in FAMILY_CONVENTIONS
    layout = detect_layout(AutoModelForCausalLM.from_config(config))
    assert layout.family == config.model_type
    assert set(layout.unavailable_sites) == (
        WITHOUT_PRE_NORMS if config_class is Olmo3Config else set()
    )


def test_the_language_model_of_a_larger_one_is_found() -> None:
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }
    text = tiny_config("gemma3").to_dict()
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    model = Gemma3ForConditionalGeneration(config)
    layout = detect_layout(model)
    assert layout.family == "gemma3_text"
    assert layout.layers[0].block is model.model.language_model.layers[0]


def test_falcon_is_refused_for_its_attention() -> None:
    with pytest.raises(UnsupportedArchitectureError, match="bypasses the attention interface"):
        detect_layout(tiny_model("falcon"))


@pytest.mark.parametrize("name", ["cohere", "phi", "stablelm_parallel"])
def test_attention_and_mlp_behind_one_norm(name: str) -> None:
    layout = detect_layout(family_model(name))
    assert layout.has_parallel_residual
    assert dict(layout.unavailable_sites) == {
        Site.NORM2: "the MLP reads 'norm1', as attention does",
        Site.RESID_MID: "attention and MLP run in parallel and are added at once",
    }
    assert layout.notes[Site.NORM1] == "read by attention and by the MLP"


@pytest.mark.parametrize(
    ("name", "residual", "embedding"),
    [("granite", 0.22, 12.0), ("hyperclovax", 0.22, 12.0), ("minicpm3", 0.1768, 1.0)],
)
def test_factors_are_read_off_the_model(name: str, residual: float, embedding: float) -> None:
    layout = detect_layout(family_model(name))
    found = [layer.residual_multiplier for layer in layout.layers]
    assert found == pytest.approx([residual] * 2, abs=1e-4)
    assert layout.embedding_multiplier == embedding
    assert f"the factor {found[0]:g}" in layout.notes[Site.ATTN_OUT]
    assert (Site.EMBED in layout.notes) == (embedding != 1.0)


def test_experts_with_a_bias_each_have_no_mean_bias() -> None:
    layout = detect_layout(family_model("gpt_oss"))
    means = layout.write_bias_means
    assert {means[SitePoint(layer, Site.MLP_OUT)] for layer in range(2)} == {None}
    expected = layout.layers[1].attn.o_proj.bias.mean().item()
    assert means[SitePoint(1, Site.ATTN_OUT)] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["gpt_oss", "llama4"])
def test_transposed_experts_are_read_as_they_compute(name: str) -> None:
    layout = detect_layout(family_model(name))
    stacks = [matrix for matrix in layout.write_matrices if matrix.weight.ndim == 3]
    assert stacks
    for matrix in stacks:
        stored = getattr(matrix.module, matrix.parameter)
        assert matrix.weight.shape == (4, 32, 48) == stored.mT.shape


def test_what_is_closest_is_named_of_a_family_that_does_not_fit() -> None:
    model = AutoModelForCausalLM.from_config(
        CONFIG_MAPPING["granitemoeshared"](**SMALL, shared_intermediate_size=48)
    )
    with pytest.raises(UnsupportedArchitectureError) as caught:
        detect_layout(model)
    assert str(caught.value).endswith(
        "has no layout that fits; closest as GraniteMoe: layer 0 also has shared_mlp"
    )


def test_cross_attention_is_refused() -> None:
    config = GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=64, add_cross_attention=True)
    with pytest.raises(UnsupportedArchitectureError, match="also has crossattention"):
        detect_layout(AutoModelForCausalLM.from_config(config))


def _without_layer(model: PreTrainedModel) -> None:
    model.model.layers = model.model.layers[:3]


def _without_norm(model: PreTrainedModel) -> None:
    model.model.norm = None
    del model.model._modules["norm"]


def _without_projection(model: PreTrainedModel) -> None:
    del model.model.layers[1].self_attn.o_proj


def _with_uneven_heads(model: PreTrainedModel) -> None:
    model.model.layers[1].self_attn.o_proj = nn.Linear(24, 32)


def _without_layers(model: PreTrainedModel) -> None:
    del model.model.layers


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_layer, "holds 3 layers; the configuration says 4"),
        (_without_norm, "no model.norm"),
        (_without_projection, "layer 1 has no self_attn.o_proj"),
        (_with_uneven_heads, r"read widths \[24, 32\]"),
        (_without_layers, "no decoder layers at model.layers"),
    ],
)
def test_what_is_missing_is_named(damage, message: str) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model("llama")
    damage(model)
    with pytest.raises(UnsupportedArchitectureError, match=message):
        detect_layout(model)


def test_a_module_that_is_no_model_is_refused() -> None:
    with pytest.raises(UnsupportedArchitectureError, match="no Hugging Face configuration"):
        detect_layout(nn.Linear(2, 2))


def test_quantised_matrices_are_mapped_but_not_read() -> None:
    layout = detect_layout(tiny_model("llama"))
    matrix = dataclasses.replace(layout.write_matrices[0], module=nn.Module())
    matrix.module.weight = nn.Parameter(torch.zeros(8, 1, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(UnsupportedArchitectureError, match="without quantisation"):
        _ = matrix.weight
