"""What the hooks show and change, against forwards patched by hand, for every family and site."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steering.hooks import hooked_point, install_hooks
from steering.layout import Layout, detect_layout
from steering.sites import Site, SitePoint
from tests.models import FAMILIES, tiny_model
from tests.models.paths import GPT2, GPT_NEOX, LLAMA, OLMO2, SANDWICH, parallel

IDS = torch.tensor([[72, 101, 108, 108, 111, 32, 119, 111, 114]])
LAST = 3
EDITABLE = [site for site in Site if site is not Site.FINAL]

BY_HAND = {
    "gemma2": SANDWICH,
    "gemma3": SANDWICH,
    "olmo2": OLMO2,
    "gpt2": GPT2,
    "gpt_neox": parallel(GPT_NEOX, has_norm2=True),
    "gpt_neox_sequential": GPT_NEOX,
}
CASES = [
    (family, site)
    for family in FAMILIES
    for site in EDITABLE
    if site in BY_HAND.get(family, LLAMA) or site in {Site.HEADS, Site.RESID_PRE}
]


class Shift:
    """A runtime that adds `delta` at one point and notes what it is shown."""

    def __init__(self, point: SitePoint | None = None, delta: Tensor | None = None) -> None:
        self.point, self.delta = point, delta
        self.seen: dict[SitePoint, Tensor] = {}

    def edit(self, point: SitePoint, hidden: Tensor) -> Tensor:
        assert point not in self.seen, f"{point} was hooked twice"
        self.seen[point] = hidden.clone()
        return hidden if point != self.point or self.delta is None else hidden + self.delta


def logits_of(model: PreTrainedModel) -> Tensor:
    with torch.inference_mode():
        return model(IDS, use_cache=False).logits


def draw_delta(width: int) -> Tensor:
    """A different shift for each token; none for two of them."""
    delta = torch.randn(IDS.shape[1], width, generator=torch.Generator().manual_seed(5))
    delta[[0, 4]] = 0.0
    return delta


def patch_by_hand(
    monkeypatch: pytest.MonkeyPatch, model: PreTrainedModel, family: str, site: Site, layer: int
) -> Callable[[Tensor], None]:
    """Shift a site by replacing the forward of the module that makes or reads it."""
    paths = BY_HAND.get(family, LLAMA)
    is_input = site in {Site.HEADS, Site.RESID_PRE}
    maker = {Site.HEADS: Site.ATTN_OUT, Site.RESID_PRE: Site.RESID_POST}.get(site, site)
    module = model.get_submodule(paths[maker].format(layer))

    def patch(delta: Tensor) -> None:
        forward = module.forward

        def shifted(hidden: Tensor, *args: object, **kwargs: object) -> Tensor:
            if is_input:
                return forward(hidden + delta, *args, **kwargs)
            return forward(hidden, *args, **kwargs) + delta

        monkeypatch.setattr(module, "forward", shifted)

    return patch


@pytest.mark.parametrize(("family", "site"), CASES)
def test_a_shift_gives_the_logits_of_a_patched_forward(
    family: str, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(family)
    layout = detect_layout(model)
    plain = logits_of(model)
    for layer in (0,) if site is Site.EMBED else (0, 2, LAST):
        delta = draw_delta(layout.width(site))
        handles = install_hooks(layout, Shift(hooked_point(SitePoint(layer, site)), delta))
        steered = logits_of(model)
        handles.remove()
        assert torch.equal(logits_of(model), plain)
        with monkeypatch.context() as patching:
            patch_by_hand(patching, model, family, site, layer)(delta)
            expected = logits_of(model)
        torch.testing.assert_close(steered, expected, rtol=1e-4, atol=1e-4)
        assert (steered - plain)[0, 1:].abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_every_available_site_is_shown_once_with_its_width(family: str) -> None:
    model = tiny_model(family)
    layout = detect_layout(model)
    runtime = Shift()
    install_hooks(layout, runtime)
    plain = logits_of(model)
    expected = {SitePoint(0, Site.EMBED), SitePoint(LAST, Site.FINAL), SitePoint(0, Site.RESID_PRE)}
    inner = set(Site) - {Site.EMBED, Site.FINAL, Site.RESID_PRE} - set(layout.unavailable_sites)
    expected |= {SitePoint(layer, site) for layer in range(4) for site in inner}
    assert set(runtime.seen) == expected
    for point, hidden in runtime.seen.items():
        assert hidden.shape == (1, IDS.shape[1], layout.width(point.site))
    assert set(BY_HAND.get(family, LLAMA)) | {Site.HEADS, Site.RESID_PRE, Site.FINAL} == (
        set(Site) - set(layout.unavailable_sites)
    )
    assert torch.equal(plain, logits_of(tiny_model(family)))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_shown_is_what_transformers_calls_hidden_states(family: str) -> None:
    model = tiny_model(family)
    runtime = Shift()
    install_hooks(detect_layout(model), runtime)
    with torch.inference_mode():
        states = model(IDS, use_cache=False, output_hidden_states=True).hidden_states
    assert torch.equal(runtime.seen[SitePoint(0, Site.RESID_PRE)], states[0])
    for layer in range(1, 4):
        assert torch.equal(
            runtime.seen[hooked_point(SitePoint(layer, Site.RESID_PRE))], states[layer]
        )
        assert torch.equal(runtime.seen[SitePoint(layer - 1, Site.RESID_POST)], states[layer])
    assert torch.equal(runtime.seen[SitePoint(LAST, Site.FINAL)], states[4])
    if family != "gpt2":  # whose positions are added in between
        assert torch.equal(runtime.seen[SitePoint(0, Site.EMBED)], states[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_residual_stream_adds_up(family: str) -> None:
    model = tiny_model(family)
    layout = detect_layout(model)
    runtime = Shift()
    install_hooks(layout, runtime)
    logits_of(model)
    for index, layer in enumerate(layout.layers):
        seen = {site: runtime.seen.get(hooked_point(SitePoint(index, site))) for site in Site}
        with torch.inference_mode():
            attn = _after(layer.attn_post_norm, seen[Site.ATTN_OUT])
            mlp = _after(layer.mlp_post_norm, seen[Site.MLP_OUT])
        total = seen[Site.RESID_PRE] + attn + mlp
        torch.testing.assert_close(seen[Site.RESID_POST], total, rtol=1e-4, atol=1e-5)
        if layout.has_site(Site.RESID_MID):
            torch.testing.assert_close(seen[Site.RESID_MID], seen[Site.RESID_PRE] + attn)


def _after(post_norm: nn.Module | None, hidden: Tensor | None) -> Tensor:
    assert hidden is not None
    return hidden if post_norm is None else post_norm(hidden)


def test_final_is_read_only() -> None:
    model = tiny_model("llama")
    plain = logits_of(model)
    install_hooks(detect_layout(model), Shift(SitePoint(LAST, Site.FINAL), torch.ones(32)))
    assert torch.equal(logits_of(model), plain)


def test_all_hooks_come_off() -> None:
    model = tiny_model("llama")
    handles = install_hooks(detect_layout(model), Shift())
    assert any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    handles.remove()
    handles.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Pair(nn.Module):
    def forward(self, hidden: Tensor) -> tuple[Tensor, str]:
        return hidden, "weights"


class ByName(nn.Module):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states * 2


def with_first_layer(layout: Layout, **modules: nn.Module) -> Layout:
    first = dataclasses.replace(layout.layers[0], **modules)
    return dataclasses.replace(layout, layers=(first, *layout.layers[1:]))


def test_an_output_tuple_keeps_its_other_members() -> None:
    pair = Pair()
    layout = with_first_layer(detect_layout(tiny_model("llama")), mlp=pair)
    install_hooks(layout, Shift(SitePoint(0, Site.MLP_OUT), torch.ones(32)))
    hidden, other = pair(torch.zeros(1, 2, 32))
    assert torch.equal(hidden, torch.ones(1, 2, 32))
    assert other == "weights"


def test_hidden_states_passed_by_name_are_edited() -> None:
    by_name = ByName()
    layout = with_first_layer(detect_layout(tiny_model("llama")), attn_write=by_name)
    install_hooks(layout, Shift(SitePoint(0, Site.HEADS), torch.ones(32)))
    assert torch.equal(by_name(hidden_states=torch.zeros(1, 1, 32)), torch.full((1, 1, 32), 2.0))
