"""The self-check accepts what is right and catches what is broken, whatever is broken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from steering import hooks
from steering.errors import SelfCheckError
from steering.layout import LayerModules, Layout, detect_layout
from steering.self_check import self_check
from steering.sites import Site, SitePoint
from tests.models import FAMILIES, VOCAB_SIZE, tiny_model
from tests.models.families import family_model

IDS = torch.tensor([[72, 101, 108, 108, 111]])


def forward_of(model: PreTrainedModel) -> Callable[[Tensor], object]:
    return lambda token_ids: model(token_ids, use_cache=False)


def check(model: PreTrainedModel, layout: Layout) -> tuple[SitePoint, ...]:
    return self_check(layout, forward_of(model))


def with_layers(layout: Layout, change: Callable[[LayerModules], dict[str, object]]) -> Layout:
    layers = tuple(dataclasses.replace(layer, **change(layer)) for layer in layout.layers)
    return dataclasses.replace(layout, layers=layers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_of_every_family_passes(family: str, dtype: torch.dtype) -> None:
    model = tiny_model(family, dtype=dtype)
    layout = detect_layout(model)
    with torch.inference_mode():
        plain = model(IDS).logits
        checked = check(model, layout)
        assert torch.equal(model(IDS).logits, plain)
    inner = set(Site) - {Site.EMBED, Site.FINAL} - set(layout.unavailable_sites)
    expected = {SitePoint(layer, site) for layer in range(4) for site in inner}
    assert set(checked) == expected | {SitePoint(0, Site.EMBED)}
    assert len(checked) == len(set(checked))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_it_is_cheap() -> None:
    model = tiny_model("llama", num_hidden_layers=10)
    calls = []

    def forward(token_ids: Tensor) -> None:
        calls.append(token_ids.shape)
        model(token_ids, use_cache=False)

    checked = self_check(detect_layout(model), forward)
    assert calls == [(1, 9)] * 6
    assert {point.layer for point in checked} == {0, 5, 9}
    assert {p.layer for p in self_check(detect_layout(model), forward, layers=[3])} == {3}


def swap_norms(layout: Layout) -> Layout:
    return with_layers(layout, lambda layer: {"norm1": layer.norm2, "norm2": layer.norm1})


def take_post_norm_for_norm2(layout: Layout) -> Layout:
    return with_layers(
        layout, lambda layer: {"norm2": layer.attn_post_norm, "attn_post_norm": layer.norm2}
    )


def take_query_for_output_projection(layout: Layout) -> Layout:
    return with_layers(layout, lambda layer: {"attn_write": layer.attn.q_proj})


def shift_output_projections(layout: Layout) -> Layout:
    writes = [layer.attn_write for layer in layout.layers]
    after = iter([*writes[1:], writes[0]])
    return with_layers(layout, lambda _layer: {"attn_write": next(after)})


def shift_layers(layout: Layout) -> Layout:
    return dataclasses.replace(layout, layers=(*layout.layers[1:], layout.layers[0]))


def drop_first_layer(layout: Layout) -> Layout:
    return dataclasses.replace(layout, layers=layout.layers[1:])


def drop_last_layer(layout: Layout) -> Layout:
    return dataclasses.replace(layout, layers=layout.layers[:-1])


def shift_mlps(layout: Layout) -> Layout:
    mlps = [layer.mlp for layer in layout.layers]
    after = iter([*mlps[1:], mlps[0]])
    return with_layers(layout, lambda _layer: {"mlp": next(after)})


def take_a_block_norm_for_the_final(layout: Layout) -> Layout:
    final = layout.layers[-1].after_resid_mid
    return dataclasses.replace(layout, final_norm=final)


def forget_post_norms(layout: Layout) -> Layout:
    return with_layers(layout, lambda _layer: {"attn_post_norm": None, "mlp_post_norm": None})


def flip_parallel(layout: Layout) -> Layout:
    return dataclasses.replace(
        layout,
        has_parallel_residual=not layout.has_parallel_residual,
        unavailable_sites={},
    )


def take_positions_for_embedding(layout: Layout) -> Layout:
    return dataclasses.replace(layout, embed=torch.nn.Embedding(VOCAB_SIZE, 32))


def widen_heads(layout: Layout) -> Layout:
    return dataclasses.replace(layout, head_dim=layout.head_dim * 2)


BROKEN = [
    ("llama", swap_norms),
    ("gpt2", swap_norms),
    ("gpt_neox", swap_norms),
    ("gemma2", take_post_norm_for_norm2),
    ("llama", take_query_for_output_projection),
    ("llama", shift_output_projections),
    ("gpt_neox", shift_output_projections),
    *((family, shift_layers) for family in FAMILIES),
    *((family, drop_first_layer) for family in FAMILIES),
    *((family, drop_last_layer) for family in FAMILIES),
    ("mixtral", shift_mlps),
    ("llama", take_a_block_norm_for_the_final),
    ("gemma2", forget_post_norms),
    ("gemma3", forget_post_norms),
    ("olmo2", forget_post_norms),
    ("gpt_neox", flip_parallel),
    ("gpt_neox_sequential", flip_parallel),
    ("gpt2", take_positions_for_embedding),
    ("llama", widen_heads),
]


@pytest.mark.parametrize(("family", "damage"), BROKEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_broken_map_is_caught(
    family: str, damage: Callable[[Layout], Layout], dtype: torch.dtype
) -> None:
    model = tiny_model(family, dtype=dtype)
    with pytest.raises(SelfCheckError, match="self-check"):
        check(model, damage(detect_layout(model)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "gpt_neox"])
def test_resid_mid_edited_on_one_branch_only_is_caught(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "_edit_input_in_place", hooks._edit_input)
    model = tiny_model(family)
    with pytest.raises(SelfCheckError, match=r"'resid_mid' of layer 0 must move the 'resid_post'"):
        check(model, detect_layout(model))


def test_an_edit_that_is_dropped_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_edit_output", hooks._read_output)
    model = tiny_model("llama")
    with pytest.raises(SelfCheckError, match="got one of length 0"):
        check(model, detect_layout(model))


def test_the_message_says_where_and_how_far_off() -> None:
    model = tiny_model("llama")
    layout = swap_norms(detect_layout(model))
    message = r"'llama': a probe at '\w+' of layer 0 must move the .* by a vector of length [\d.]+"
    with pytest.raises(SelfCheckError, match=message):
        check(model, layout)


def forget_factors(layout: Layout) -> Layout:
    return with_layers(layout, lambda _layer: {"residual_multiplier": 1.0})


def forget_the_embedding_factor(layout: Layout) -> Layout:
    return dataclasses.replace(layout, embedding_multiplier=1.0)


def take_the_first_map_for_the_mlp(layout: Layout) -> Layout:
    return with_layers(layout, lambda layer: {"mlp": layer.mlp_first})


def take_the_last_map_for_the_first(layout: Layout) -> Layout:
    return with_layers(layout, lambda layer: {"mlp_first": layer.mlp})


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("granite", forget_factors, "must move the 'resid_mid'"),
        ("granite", forget_the_embedding_factor, "at 'embed' of layer 0"),
        ("glm4", forget_post_norms, "must move the 'resid_mid'"),
        ("minicpm3", forget_factors, "must move the 'resid_mid'"),
        ("cohere", flip_parallel, "self-check"),
        ("opt", take_the_first_map_for_the_mlp, "is 48 wide"),
        ("opt", take_the_last_map_for_the_first, "is 48 wide; expected 32"),
        ("llama4", shift_mlps, "self-check"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_family_does_differently_is_checked(
    name: str, damage: Callable[[Layout], Layout], message: str, dtype: torch.dtype
) -> None:
    model = family_model(name, dtype=dtype)
    check(model, detect_layout(model))
    with pytest.raises(SelfCheckError, match=message):
        check(model, damage(detect_layout(model)))


def test_a_norm_that_the_mlp_does_not_read_is_caught() -> None:
    """Cohere's MLP reads `norm1`; a map of one norm for both does not fit GPT-NeoX's two."""
    model = tiny_model("gpt_neox")
    layout = with_layers(detect_layout(model), lambda _layer: {"norm2": None})
    layout = dataclasses.replace(layout, unavailable_sites={Site.NORM2: "", Site.RESID_MID: ""})
    with pytest.raises(SelfCheckError, match="'norm1' of layer 0 must move the input of the MLP"):
        check(model, layout)


def test_what_lingers_after_the_probes_is_caught() -> None:
    model = tiny_model("llama")
    calls = 0

    def forward(token_ids: Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:  # one plain, four probed
            model.model.layers[2].mlp.down_proj.weight[0, 0] += 1e-3
        model(token_ids, use_cache=False)

    with pytest.raises(SelfCheckError, match="'mlp_out' of layer 2 is not restored"):
        self_check(detect_layout(model), forward)


@pytest.mark.parametrize(("noise", "is_refused"), [(5e-7, False), (1e-2, True)])
def test_rounding_that_varies_is_let_through_and_noise_is_not(
    noise: float, is_refused: bool
) -> None:
    model = tiny_model("llama")
    embedding = model.model.embed_tokens.weight

    def forward(token_ids: Tensor) -> None:
        embedding.mul_(1 + noise)
        model(token_ids, use_cache=False)

    if is_refused:
        with pytest.raises(SelfCheckError):
            self_check(detect_layout(model), forward)
    else:
        self_check(detect_layout(model), forward)


def test_a_module_called_twice_is_refused() -> None:
    model = tiny_model("llama")

    def forward(token_ids: Tensor) -> None:
        model(token_ids, use_cache=False)
        model(token_ids, use_cache=False)

    with pytest.raises(SelfCheckError, match="more than once"):
        self_check(detect_layout(model), forward)


def test_a_non_finite_model_is_refused() -> None:
    model = tiny_model("llama")
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] = torch.nan
    with pytest.raises(SelfCheckError):
        check(model, detect_layout(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_massive_activations_neither_alarm_nor_hide(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few residual channels of real models are a thousand times larger than the others."""
    model = tiny_model(family, dtype=torch.bfloat16)
    layout = detect_layout(model)
    layout.embed.weight.data[:, 3] *= 500
    check(model, layout)
    if layout.has_site(Site.RESID_MID):
        monkeypatch.setattr(hooks, "_edit_input_in_place", hooks._edit_input)
        with pytest.raises(SelfCheckError):
            check(model, layout)
