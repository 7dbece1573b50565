"""At load: does the architecture map say where things really are?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from steering.errors import SelfCheckError
from steering.layout import Layout
from steering.sites import Site, SitePoint

from .probe import Probe, Trace, trace_forward
from .probe_effects import PROBE_ROWS, LayerEffects, relative_tolerance

__all__ = ["self_check"]

_RELATIVE_SIZE: Final = 0.5  # of a probe, against the activations it must show up among
_MAX_LAYERS_CHECKED_ALL: Final = 8


def self_check(
    layout: Layout,
    forward: Callable[[Tensor], object],
    *,
    layers: Sequence[int] | None = None,
) -> tuple[SitePoint, ...]:
    """Verify that a probe at every site moves what follows by what the formula says.

    A shift d at `resid_post[l]` must arrive at layer l + 1 as d; one at `heads` must move
    `attn_out` by d W_O^T; one at `attn_out` must move the residual stream by d, or by what the
    post-norm makes of it; one at `resid_mid` must reach both the MLP and the residual; and so on
    for every available site. Without probes the activations must then be those of before, bit by
    bit where the model is deterministic. Three forwards on nine tokens, and one for each layer
    checked.

    Args:
        layout: The map; its modules get hooks during the forwards only.
        forward: Runs the model on token ids [1, 9] as one causal sequence, without a cache.
        layers: Layers to check; by default all of up to 8, else the first, middle and last.

    Returns:
        The points checked.

    Raises:
        SelfCheckError: Names site, layer, what was expected and what came.
    """
    token_ids = _probe_token_ids(layout)
    base = trace_forward(layout, forward, token_ids)
    _check_widths(layout, base)
    checked: list[SitePoint] = []
    for layer in _layers_to_check(layout) if layers is None else layers:
        points = [SitePoint(layer, site) for site in PROBE_ROWS if _is_checked(layout, layer, site)]
        probes = [_make_probe(layout, base, point) for point in points]
        probed = trace_forward(layout, forward, token_ids, probes)
        for effect in LayerEffects(layout, layer, base, probed).all():
            effect.check(layout.family)
        checked += points
    _check_restored(layout, forward, token_ids, base)
    return tuple(checked)


def _probe_token_ids(layout: Layout) -> Tensor:
    """Nine ids spread over the vocabulary, away from its ends where special tokens are."""
    weight = layout.embed.weight
    assert isinstance(weight, Tensor)
    size = weight.shape[0]
    ids = torch.linspace(size // 8, size - size // 8 - 1, len(PROBE_ROWS), device=weight.device)
    return ids.long()[None]


def _layers_to_check(layout: Layout) -> Sequence[int]:
    count = layout.num_layers
    if count <= _MAX_LAYERS_CHECKED_ALL:
        return range(count)
    return (0, count // 2, count - 1)


def _is_checked(layout: Layout, layer: int, site: Site) -> bool:
    return layout.has_site(site) and (site is not Site.EMBED or layer == 0)


def _check_widths(layout: Layout, base: Trace) -> None:
    for point, hidden in base.seen.items():
        if hidden.shape[-1] != layout.width(point.site):
            raise SelfCheckError(
                f"self-check of {layout.family!r}: {point.site.value!r} of layer {point.layer} is "
                f"{hidden.shape[-1]} wide; expected {layout.width(point.site)}"
            )
    base.before(SitePoint(layout.num_layers - 1, Site.FINAL))  # read only, so never probed


def _make_probe(layout: Layout, base: Trace, point: SitePoint) -> Probe:
    """Random signs, sized to show among the activations that the shift is added to."""
    row = PROBE_ROWS[point.site]
    size = _root_mean_square(base.before(point)[row])
    module = layout.layers[point.layer]
    post_norms = {Site.ATTN_OUT: module.attn_post_norm, Site.MLP_OUT: module.mlp_post_norm}
    if point.site in post_norms and post_norms[point.site] is None:
        residual = base.before(SitePoint(point.layer, Site.RESID_POST))[row]
        size = max(size, _root_mean_square(residual))
    generator = torch.Generator().manual_seed(row)
    signs = torch.randint(0, 2, (layout.width(point.site),), generator=generator) * 2 - 1
    return Probe(point, row, _RELATIVE_SIZE * max(size, 1e-3) * signs.float())


def _root_mean_square(hidden: Tensor) -> float:
    return float(hidden.float().square().mean().sqrt())


def _check_restored(
    layout: Layout, forward: Callable[[Tensor], object], token_ids: Tensor, base: Trace
) -> None:
    """Without probes everything must be as before: nothing a probe touched may linger."""
    restored, again = (trace_forward(layout, forward, token_ids) for _ in range(2))
    # where two plain forwards differ in rounding, bits cannot tell
    is_deterministic = not any(_drift(restored, again, point) for point in base.seen)
    for point, hidden in base.seen.items():
        drift = _drift(base, restored, point)
        allowed = 0.0 if is_deterministic else relative_tolerance(hidden.dtype)
        if not drift <= allowed:  # so that NaN fails
            raise SelfCheckError(
                f"self-check of {layout.family!r}: {point.site.value!r} of layer {point.layer} is "
                f"not restored when the probes are gone: it moved by {drift:.2g} of its length; "
                f"expected {'no change' if is_deterministic else f'at most {allowed:g}'}"
            )


def _drift(one: Trace, other: Trace, point: SitePoint) -> float:
    before, after = one.seen[point].float(), other.seen[point].float()
    return float((after - before).norm() / before.norm().clamp_min(torch.finfo().tiny))
