"""Attention heads: what each writes along a probe, choosing some, a direction that scales them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from steering.directions import Direction, DirectionKind
from steering.errors import InvalidFieldError, ShapeMismatchError
from steering.sites import Site


class Head(NamedTuple):
    """One attention head: layer and index, both from 0."""

    layer: int
    head: int


class HeadScore(NamedTuple):
    """A head and its score."""

    head: Head
    score: float


def rank_heads(scores: ArrayLike, *, descending: bool = False) -> tuple[HeadScore, ...]:
    """Heads by score [L, H], smallest first unless told otherwise; equal ones by layer and index.

    Attribution ranks ascending: the most negative heads suppress. The causal variant ranks
    descending: without them the probe's score is highest.
    """
    table = np.asarray(scores, dtype=np.float64)
    keys = (-table if descending else table).ravel()
    return tuple(
        HeadScore(Head(*divmod(int(index), table.shape[1])), float(table.flat[index]))
        for index in np.argsort(keys, kind="stable")
    )


def head_count(total: int, percent: float) -> int:
    """How many of `total` heads `percent` (over 0, to 100) takes: rounded, at least one.

    Raises:
        InvalidFieldError: A percentage outside.
    """
    if not 0.0 < percent <= 100.0:
        raise InvalidFieldError(
            f"percent is {percent:g}; expected more than 0 and at most 100", param="percent"
        )
    return min(total, max(1, round(total * percent / 100.0)))


def random_heads(
    num_layers: int, num_heads: int, count: int, *, seed: int, exclude: Collection[Head] = ()
) -> tuple[Head, ...]:
    """A control: `count` heads drawn evenly and without repetition, none of `exclude`, sorted.

    Raises:
        InvalidFieldError: Fewer heads are left than are wanted.
    """
    left = [
        Head(layer, head)
        for layer in range(num_layers)
        for head in range(num_heads)
        if (layer, head) not in exclude
    ]
    if count > len(left):
        raise InvalidFieldError(
            f"percent takes {count} heads, but only {len(left)} are left for a random control; "
            "choose a smaller percentage",
            param="percent",
        )
    drawn = np.random.default_rng(seed).choice(len(left), size=count, replace=False)
    return tuple(sorted(left[index] for index in drawn))


def heads_direction(
    heads: Sequence[Head],
    *,
    name: str,
    num_heads: int,
    gamma: float = 0.0,
    model_fingerprint: str | None = None,
    requires: Sequence[str] = (),
    provenance: dict[str, object] | None = None,
) -> Direction:
    """A direction for `scale_heads`: `gamma` for each of `heads`, 1 for all others of their layers.

    gamma: factor on a head's output; 0 removes it, which is what the published runs do.

    Raises:
        InvalidFieldError: No heads.

    Source: Refusal Cliff, arXiv:2510.06036 (ablation of refusal suppression heads).
    """
    if not heads:
        raise InvalidFieldError("heads is empty; expected one or more", param="heads")
    layers = tuple(sorted({head.layer for head in heads}))
    scales = {layer: torch.ones(num_heads) for layer in layers}
    for layer, head in heads:
        scales[layer][head] = gamma
    return Direction(
        name=name,
        kind=DirectionKind.HEADS,
        site=Site.HEADS,
        layers=layers,
        tensors={f"scale.{layer}": scale for layer, scale in scales.items()},
        model_fingerprint=model_fingerprint,
        requires=tuple(requires),
        provenance=dict(provenance or {}),
    )


def attribute_heads(
    heads: ArrayLike, pulled_back: ArrayLike, num_heads: int, *, scales: ArrayLike | None = None
) -> NDArray[np.float64]:
    """mean over prompts of <o_{l,i}, w> / |w|: [L, H], most negative where a head suppresses.

    o_{l,i} = z_{l,i} W_O[:, i]^T is what head i of layer l adds to the residual stream, so that the
    sum over heads is the projection of `attn_out` (less its bias). A probe's own bias is a constant
    and left out.

    With `scales` the probe is folded through the final norm: `pulled_back` then belongs to
    v = gain * w (centred for LayerNorm), and each prompt's share is divided by its scale(h_final);
    the sum over everything that writes to the residual stream is w . final, up to a constant.

    Args:
        heads: z [L, N, H * Dh], at the last token of each prompt.
        pulled_back: (w / |w|) W_O [L, H * Dh], of each layer (v / |w| where folded).
        num_heads: H.
        scales: [N], or None without the fold.

    Raises:
        ShapeMismatchError: Shapes that do not fit together.

    Source: Refusal Cliff, arXiv:2510.06036 (refusal suppression heads); the fold is ours: w lives
        after the final norm and o before it.
    """
    z, pull = np.asarray(heads, dtype=np.float64), np.asarray(pulled_back, dtype=np.float64)
    if z.ndim != 3 or pull.shape != (z.shape[0], z.shape[2]) or z.shape[2] % num_heads:
        raise ShapeMismatchError(
            f"heads has shape {list(z.shape)} and pulled_back {list(pull.shape)}; expected "
            f"[layers, prompts, width] and [layers, width], the width divisible by {num_heads}",
            param="heads",
        )
    weights = np.ones(z.shape[1]) if scales is None else 1.0 / np.asarray(scales, dtype=np.float64)
    if weights.shape != (z.shape[1],):
        raise ShapeMismatchError(
            f"scales has shape {list(weights.shape)}; expected [{z.shape[1]}], one per prompt",
            param="scales",
        )
    mean = np.einsum("lnw,n->lw", z, weights) / z.shape[1]
    shares: NDArray[np.float64] = (mean * pull).reshape(len(z), num_heads, -1).sum(axis=2)
    return shares
