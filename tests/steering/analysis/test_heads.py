"""Shares of heads add up to what the model itself computes, in every family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steering.analysis import (
    Head,
    attribute_heads,
    head_count,
    heads_direction,
    random_heads,
    rank_heads,
)
from steering.errors import InvalidFieldError, ShapeMismatchError, SiteUnavailableError
from steering.layout import AttentionReader, Layout, detect_layout
from steering.sites import Site
from tests.models import FAMILIES, tiny_model
from tests.models.families import family_model

POST_NORM = ("gemma2", "gemma3", "olmo2")
LINEAR = [family for family in FAMILIES if family not in POST_NORM]
PROMPTS = ((5, 6, 7, 8), (40, 41, 42, 43), (99, 98, 97, 96))


@dataclass(frozen=True)
class Seen:
    """At the last token of each prompt: z [L, N, W], attn_out and mlp_out [L, N, d], and so on."""

    heads: NDArray[np.float64]
    attn_out: NDArray[np.float64]
    mlp_out: NDArray[np.float64]
    embed: NDArray[np.float64]
    before_norm: NDArray[np.float64]
    final: NDArray[np.float64]


def observe(model: nn.Module, layout: Layout) -> Seen:
    """What plain hooks of the modules see."""
    kept: dict[tuple[str, int], list[Tensor]] = {}

    def watch(module: nn.Module, layer: int, given_name: str | None, out_name: str) -> Any:
        def hook(_: nn.Module, given: tuple[Tensor, ...], out: Any) -> None:
            tensors = {given_name: given[0], out_name: out if isinstance(out, Tensor) else out[0]}
            for name, tensor in tensors.items():
                if name is not None:
                    row = tensor.detach().reshape(4, -1)[-1].double()
                    kept.setdefault((name, layer), []).append(row)

        return module.register_forward_hook(hook)

    handles = [
        watch(layout.embed, 0, None, "embed"),
        watch(layout.final_norm, 0, "before_norm", "final"),
        *(watch(part.attn_write, i, "heads", "attn_out") for i, part in enumerate(layout.layers)),
        *(watch(part.mlp, i, None, "mlp_out") for i, part in enumerate(layout.layers)),
    ]
    with torch.inference_mode():
        for prompt in PROMPTS:
            model(input_ids=torch.tensor([prompt]), use_cache=False)
    for handle in handles:
        handle.remove()

    def stacked(name: str) -> NDArray[np.float64]:
        rows = [torch.stack(kept[name, i]).numpy() for i in range(layout.num_layers)]
        return np.stack(rows)

    def single(name: str) -> NDArray[np.float64]:
        found: NDArray[np.float64] = torch.stack(kept[name, 0]).numpy()
        return found

    return Seen(
        *(stacked(name) for name in ("heads", "attn_out", "mlp_out")),
        *(single(name) for name in ("embed", "before_norm", "final")),
    )


def biases(layout: Layout) -> NDArray[np.float64]:
    """[L, d]: the constant part of each attention output projection."""
    found = [getattr(layer.attn_write, "bias", None) for layer in layout.layers]
    zero = torch.zeros(layout.hidden_size)
    return torch.stack([zero if b is None else b.detach() for b in found]).double().numpy()


@pytest.mark.parametrize("family", LINEAR)
def test_shares_add_up_to_the_projection_of_attn_out(family: str) -> None:
    model = tiny_model(family)
    layout = detect_layout(model)
    seen, weight = observe(model, layout), np.random.standard_normal(layout.hidden_size)
    unit = weight / np.linalg.norm(weight)
    shares = attribute_heads(seen.heads, AttentionReader(layout).pull_back(unit), layout.num_heads)
    assert shares.shape == (layout.num_layers, layout.num_heads)
    expected = ((seen.attn_out - biases(layout)[:, None]) @ unit).mean(axis=1)
    np.testing.assert_allclose(shares.sum(axis=1), expected, atol=1e-5)


def test_shares_are_of_what_is_added_where_a_family_scales_it() -> None:
    layout = detect_layout(model := family_model("granite"))
    seen, weight = observe(model, layout), np.random.standard_normal(layout.hidden_size)
    shares = attribute_heads(
        seen.heads, AttentionReader(layout).pull_back(weight), layout.num_heads
    )
    expected = 0.22 * (seen.attn_out @ weight).mean(axis=1)
    np.testing.assert_allclose(shares.sum(axis=1), expected, atol=1e-5)


@pytest.mark.parametrize("family", LINEAR)
def test_the_share_of_a_head_is_what_is_lost_without_it(family: str) -> None:
    model = tiny_model(family)
    layout = detect_layout(model)
    seen, weight = observe(model, layout), np.random.standard_normal(layout.hidden_size)
    shares = attribute_heads(
        seen.heads, AttentionReader(layout).pull_back(weight), layout.num_heads
    )
    layer, head, width = 2, 1, layout.head_dim
    without = seen.heads[layer].copy()
    without[:, head * width : (head + 1) * width] = 0.0
    write = layout.layers[layer].attn_write
    with torch.inference_mode():
        written = write(torch.tensor(without, dtype=torch.float32)).double().numpy()
    lost = (seen.attn_out[layer] - written) @ weight
    assert shares[layer, head] == pytest.approx(lost.mean(), abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "gpt_neox"])
def test_the_folded_shares_of_everything_add_up_to_the_final_score(family: str) -> None:
    """w . final = (embed + heads + MLPs) . v / scale(h): the logit-style decomposition."""
    model = tiny_model(family)
    layout = detect_layout(model)
    reader, seen = AttentionReader(layout), observe(model, layout)
    weight = np.random.standard_normal(layout.hidden_size)
    norm = reader.final_norm
    folded, scales = norm.fold(weight), norm.scale(seen.before_norm)
    shares = attribute_heads(seen.heads, reader.pull_back(folded), layout.num_heads, scales=scales)
    constant = biases(layout).sum(axis=0)
    rest = ((seen.embed + seen.mlp_out.sum(axis=0) + constant) @ folded / scales).mean()
    bias = getattr(layout.final_norm, "bias", None)
    shift = 0.0 if bias is None else float(bias.detach().double().numpy() @ weight)
    expected = (seen.final @ weight).mean() - shift
    assert shares.sum() + rest == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_final_norm_is_recognised(family: str) -> None:
    model = tiny_model(family)
    layout = detect_layout(model)
    norm = AttentionReader(layout).final_norm
    own = layout.final_norm.weight.detach().double().numpy()  # type: ignore[operator]
    np.testing.assert_allclose(norm.gain, own + family.startswith("gemma"), atol=1e-5)
    assert norm.is_centred is (type(layout.final_norm) is nn.LayerNorm)


@pytest.mark.parametrize("family", POST_NORM)
def test_families_that_norm_attn_out_are_refused_by_name(family: str) -> None:
    layout = detect_layout(tiny_model(family))
    with pytest.raises(SiteUnavailableError, match=family) as caught:
        AttentionReader(layout).pull_back(np.ones(layout.hidden_size))
    assert caught.value.param == "method"


@pytest.mark.parametrize(
    ("heads", "pull", "scales", "param"),
    [
        ((2, 3, 8), (2, 6), None, "heads"),
        ((2, 3, 7), (2, 7), None, "heads"),
        ((2, 3, 8), (2, 8), (4,), "scales"),
    ],
)
def test_shapes_that_do_not_fit_are_named(
    heads: tuple[int, ...], pull: tuple[int, ...], scales: tuple[int, ...] | None, param: str
) -> None:
    with pytest.raises(ShapeMismatchError) as caught:
        attribute_heads(
            np.ones(heads), np.ones(pull), 4, scales=None if scales is None else np.ones(scales)
        )
    assert caught.value.param == param


def test_ranking_orders_and_breaks_ties_by_place() -> None:
    scores = [[0.5, -1.0], [-1.0, 2.0]]
    assert [found.head for found in rank_heads(scores)] == [(0, 1), (1, 0), (0, 0), (1, 1)]
    descending = rank_heads(scores, descending=True)
    assert [found.head for found in descending] == [(1, 1), (0, 0), (0, 1), (1, 0)]
    assert descending[0].score == 2.0


@pytest.mark.parametrize(
    ("total", "percent", "expected"),
    [(784, 1.5, 12), (784, 3, 24), (784, 10, 78), (1920, 1.5, 29), (48, 1.5, 1), (48, 100, 48)],
)
def test_a_percentage_takes_as_many_as_the_paper(total: int, percent: float, expected: int) -> None:
    assert head_count(total, percent) == expected


@pytest.mark.parametrize("percent", [0.0, 100.5, -1.0])
def test_other_percentages_are_refused(percent: float) -> None:
    with pytest.raises(InvalidFieldError, match="percent"):
        head_count(48, percent)


def test_random_heads_repeat_by_seed_and_avoid_the_chosen() -> None:
    chosen = {Head(0, head) for head in range(4)}
    drawn = random_heads(3, 4, 5, seed=7, exclude=chosen)
    assert drawn == random_heads(3, 4, 5, seed=7, exclude=chosen)
    assert drawn != random_heads(3, 4, 5, seed=8, exclude=chosen)
    assert len(set(drawn)) == 5
    assert not chosen & set(drawn)
    assert list(drawn) == sorted(drawn)


def test_more_random_heads_than_are_left_is_refused() -> None:
    with pytest.raises(InvalidFieldError, match="only 2 are left"):
        random_heads(1, 4, 3, seed=0, exclude={Head(0, 0), Head(0, 1)})


def test_the_direction_scales_the_chosen_heads_and_no_others() -> None:
    made = heads_direction(
        [Head(2, 1), Head(0, 0), Head(2, 3)], name="cut", num_heads=4, gamma=0.25
    )
    assert made.site is Site.HEADS
    assert made.layers == (0, 2)
    assert torch.equal(made.at(0)["scale"], torch.tensor([0.25, 1, 1, 1]))
    assert torch.equal(made.at(2)["scale"], torch.tensor([1, 0.25, 1, 0.25]))
    with pytest.raises(InvalidFieldError, match="heads"):
        heads_direction([], name="cut", num_heads=4)


def test_every_head_is_ranked_once() -> None:
    table = np.random.standard_normal((4, 6))
    assert {found.head for found in rank_heads(table)} == {
        (layer, head) for layer in range(4) for head in range(6)
    }
