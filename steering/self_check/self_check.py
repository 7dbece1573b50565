"""At load: does the architecture map say where things really are?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from steering.errors import SelfCheckError
from steering.layout import LayerModules, Layout
from steering.sites import Site, SitePoint

from .probe import Probe, Trace, WatchedInput, trace_forward

# One token per site, the last computed first: what a token's probe changes reaches only later
# tokens, and of these none before its own probe, so one forward checks all sites of a layer.
_PROBE_ROWS: Final = {
    site: row
    for row, site in enumerate(
        (
            Site.RESID_POST,
            Site.MLP_OUT,
            Site.NORM2,
            Site.RESID_MID,
            Site.ATTN_OUT,
            Site.HEADS,
            Site.NORM1,
            Site.RESID_PRE,
            Site.EMBED,
        )
    )
}
_RELATIVE_SIZE: Final = 0.5  # of a probe, against the activations it must show up among
_MAX_LAYERS_CHECKED_ALL: Final = 8


@dataclass(frozen=True, eq=False)
class _Effect:
    """What one probe did to one tensor, for one token: base, probed and expected are [d]."""

    point: SitePoint
    observed: str
    base: Tensor
    probed: Tensor
    expected: Tensor

    def check(self, family: str) -> None:
        """Compare the shift with the expected one, up to rounding in the model's dtype.

        Raises:
            SelfCheckError: They differ.
        """
        if self.base.shape != self.expected.shape:
            raise SelfCheckError(
                f"self-check of {family!r}: the {self.observed}, where {self.point.site.value!r} "
                f"of layer {self.point.layer} must arrive, is {len(self.base)} wide; expected "
                f"{len(self.expected)}"
            )
        base, probed = self.base.float().cpu(), self.probed.float().cpu()
        expected, shift = self.expected.float().cpu(), probed - base
        eps = torch.finfo(self.base.dtype).eps
        rounding = 4 * eps * (base.norm() + probed.norm())
        allowed = float(_relative_tolerance(self.base.dtype) * expected.norm() + rounding)
        error = float((shift - expected).norm())
        if not error <= allowed:  # so that NaN fails
            raise SelfCheckError(
                f"self-check of {family!r}: a probe at {self.point.site.value!r} of layer "
                f"{self.point.layer} must move the {self.observed} by a vector of length "
                f"{float(expected.norm()):.4g}; got one of length {float(shift.norm()):.4g}, "
                f"{error:.4g} away from it (allowed {allowed:.2g}). The architecture map does not "
                "hold for this model"
            )


@dataclass(frozen=True, eq=False)
class _LayerEffects:
    """What the probes of one layer must have done.

    Attributes:
        layout: The map under test.
        layer: The layer whose sites were probed.
        base: A forward without probes.
        probed: The same with a probe at every site of the layer, each on its own token.
    """

    layout: Layout
    layer: int
    base: Trace
    probed: Trace

    def all(self) -> Iterator[_Effect]:
        """Every effect, in the order of computation."""
        if self.layer == 0:
            yield self._arrives(Site.EMBED, 0, WatchedInput.BLOCK, self.layout.embedding_multiplier)
        yield from self._of_resid_pre()
        if self.layout.has_site(Site.NORM1):
            yield self._arrives(Site.NORM1, self.layer, WatchedInput.ATTN)
            if self.layout.has_parallel_residual and not self.layout.has_site(Site.NORM2):
                yield self._arrives(Site.NORM1, self.layer, WatchedInput.MLP)
        yield self._moves(
            Site.HEADS, Site.ATTN_OUT, self._map(Site.HEADS, self._modules.attn_write)
        )
        yield self._moves(Site.ATTN_OUT, self._resid_after_attn, self._added(Site.ATTN_OUT))
        if self.layout.has_site(Site.RESID_MID):
            yield from self._of_resid_mid()
        if self.layout.has_site(Site.NORM2):
            yield self._arrives(Site.NORM2, self.layer, WatchedInput.MLP)
        yield self._moves(Site.MLP_OUT, Site.RESID_POST, self._added(Site.MLP_OUT))
        yield self._of_resid_post()

    @property
    def _modules(self) -> LayerModules:
        return self.layout.layers[self.layer]

    @property
    def _resid_after_attn(self) -> Site:
        return Site.RESID_POST if self.layout.has_parallel_residual else Site.RESID_MID

    def _of_resid_pre(self) -> Iterator[_Effect]:
        site, modules = Site.RESID_PRE, self._modules
        yield self._arrives(site, self.layer, WatchedInput.BLOCK)
        if modules.norm1 is None:
            yield self._arrives(site, self.layer, WatchedInput.ATTN)
        else:
            yield self._moves(site, Site.NORM1, self._map(site, modules.norm1))
        expected = self._map(site) + self._added(Site.ATTN_OUT)
        if self.layout.has_parallel_residual:
            expected = expected + self._added(Site.MLP_OUT)
        yield self._moves(site, self._resid_after_attn, expected)

    def _of_resid_mid(self) -> Iterator[_Effect]:
        site, modules = Site.RESID_MID, self._modules
        if modules.norm2 is None:
            yield self._arrives(site, self.layer, WatchedInput.MLP)
        else:
            yield self._moves(site, Site.NORM2, self._map(site, modules.norm2))
        yield self._moves(site, Site.RESID_POST, self._map(site) + self._added(Site.MLP_OUT))

    def _of_resid_post(self) -> _Effect:
        if self.layer + 1 < self.layout.num_layers:
            return self._arrives(Site.RESID_POST, self.layer + 1, WatchedInput.BLOCK)
        expected = self._map(Site.RESID_POST, self.layout.final_norm)
        return self._moves(Site.RESID_POST, Site.FINAL, expected)

    def _added(self, site: Site) -> Tensor:
        """[tokens, d] float32: how far the shift of `site` moves the residual it is added to."""
        modules = self._modules
        post_norm = modules.attn_post_norm if site is Site.ATTN_OUT else modules.mlp_post_norm
        return modules.residual_multiplier * self._map(site, post_norm)

    def _map(self, site: Site, module: nn.Module | None = None) -> Tensor:
        """[tokens, d] float32: how far the shift of `site` moves the output of `module`."""
        point = SitePoint(self.layer, site)
        with torch.inference_mode():
            probed, base = (
                hidden if module is None else module(hidden[None])[0]
                for hidden in (self.probed.after(point), self.base.before(point))
            )
            return (probed.float() - base.float()).cpu()

    def _arrives(self, site: Site, layer: int, name: WatchedInput, factor: float = 1.0) -> _Effect:
        """The probe itself, times `factor`, is what the module of `layer` is given."""
        key = (layer, name)
        for trace in (self.base, self.probed):
            if key not in trace.watched:
                raise SelfCheckError(f"self-check: no {name.value} {layer} was ever computed")
        observed = f"{name.value} of layer {layer}"
        before, after = self.base.watched[key], self.probed.watched[key]
        return self._effect(site, observed, before, after, factor * self._map(site))

    def _moves(self, site: Site, observed: Site, expected: Tensor) -> _Effect:
        point = SitePoint(self.layer, observed)
        before, after = self.base.before(point), self.probed.before(point)
        return self._effect(site, repr(observed.value), before, after, expected)

    def _effect(
        self, site: Site, observed: str, base: Tensor, probed: Tensor, expected: Tensor
    ) -> _Effect:
        row = _PROBE_ROWS[site]
        point = SitePoint(self.layer, site)
        return _Effect(point, observed, base[row], probed[row], expected[row])


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
        points = [
            SitePoint(layer, site) for site in _PROBE_ROWS if _is_checked(layout, layer, site)
        ]
        probes = [_make_probe(layout, base, point) for point in points]
        probed = trace_forward(layout, forward, token_ids, probes)
        for effect in _LayerEffects(layout, layer, base, probed).all():
            effect.check(layout.family)
        checked += points
    _check_restored(layout, forward, token_ids, base)
    return tuple(checked)


def _probe_token_ids(layout: Layout) -> Tensor:
    """Nine ids spread over the vocabulary, away from its ends where special tokens are."""
    weight = layout.embed.weight
    assert isinstance(weight, Tensor)
    size = weight.shape[0]
    ids = torch.linspace(size // 8, size - size // 8 - 1, len(_PROBE_ROWS), device=weight.device)
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
    row = _PROBE_ROWS[point.site]
    size = _root_mean_square(base.before(point)[row])
    module = layout.layers[point.layer]
    post_norms = {Site.ATTN_OUT: module.attn_post_norm, Site.MLP_OUT: module.mlp_post_norm}
    if point.site in post_norms and post_norms[point.site] is None:
        residual = base.before(SitePoint(point.layer, Site.RESID_POST))[row]
        size = max(size, _root_mean_square(residual) / abs(module.residual_multiplier))
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
        allowed = 0.0 if is_deterministic else _relative_tolerance(hidden.dtype)
        if not drift <= allowed:  # so that NaN fails
            raise SelfCheckError(
                f"self-check of {layout.family!r}: {point.site.value!r} of layer {point.layer} is "
                f"not restored when the probes are gone: it moved by {drift:.2g} of its length; "
                f"expected {'no change' if is_deterministic else f'at most {allowed:g}'}"
            )


def _drift(one: Trace, other: Trace, point: SitePoint) -> float:
    before, after = one.seen[point].float(), other.seen[point].float()
    return float((after - before).norm() / before.norm().clamp_min(torch.finfo().tiny))


def _relative_tolerance(dtype: torch.dtype) -> float:
    """How far, of its length, a vector may be off in `dtype` when all is well."""
    return 1e-3 if torch.finfo(dtype).bits >= 32 else 2e-2
