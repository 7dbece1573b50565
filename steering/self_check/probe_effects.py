"""What probes must do to the activations that follow them: the formulas of the self-check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from steering.errors import SelfCheckError
from steering.layout import LayerModules, Layout
from steering.sites import Site, SitePoint

from .probe import Trace, WatchedInput

__all__ = ["PROBE_ROWS", "Effect", "LayerEffects", "relative_tolerance"]

# One token per site, the last computed first: what a token's probe changes reaches only later
# tokens, and of these none before its own probe, so one forward checks all sites of a layer.
PROBE_ROWS: Final = {
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


def relative_tolerance(dtype: torch.dtype) -> float:
    """How far, of its length, a vector may be off in `dtype` when all is well."""
    return 1e-3 if torch.finfo(dtype).bits >= 32 else 2e-2


@dataclass(frozen=True, eq=False)
class Effect:
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
        base, probed = self.base.float().cpu(), self.probed.float().cpu()
        expected, shift = self.expected.float().cpu(), probed - base
        eps = torch.finfo(self.base.dtype).eps
        rounding = 4 * eps * (base.norm() + probed.norm())
        allowed = float(relative_tolerance(self.base.dtype) * expected.norm() + rounding)
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
class LayerEffects:
    """What the probes of one layer must have done.

    Attributes:
        layout: The map under test.
        layer: Where the probes were.
        base: A forward without probes.
        probed: The same with a probe at every site of the layer, each on its own token.
    """

    layout: Layout
    layer: int
    base: Trace
    probed: Trace

    def all(self) -> Iterator[Effect]:
        """Every effect, in the order of computation."""
        if self.layer == 0:
            yield self._arrives(Site.EMBED, 0, WatchedInput.BLOCK)
        yield from self._of_resid_pre()
        if self.layout.has_site(Site.NORM1):
            yield self._arrives(Site.NORM1, self.layer, WatchedInput.ATTN)
        yield self._moves(
            Site.HEADS, Site.ATTN_OUT, self._map(Site.HEADS, self._modules.attn_write)
        )
        yield self._moves(
            Site.ATTN_OUT,
            self._resid_after_attn,
            self._map(Site.ATTN_OUT, self._modules.attn_post_norm),
        )
        if self.layout.has_site(Site.RESID_MID):
            yield from self._of_resid_mid()
        if self.layout.has_site(Site.NORM2):
            yield self._arrives(Site.NORM2, self.layer, WatchedInput.MLP)
        yield self._moves(
            Site.MLP_OUT, Site.RESID_POST, self._map(Site.MLP_OUT, self._modules.mlp_post_norm)
        )
        yield self._of_resid_post()

    @property
    def _modules(self) -> LayerModules:
        return self.layout.layers[self.layer]

    @property
    def _resid_after_attn(self) -> Site:
        return Site.RESID_POST if self.layout.has_parallel_residual else Site.RESID_MID

    def _of_resid_pre(self) -> Iterator[Effect]:
        site, modules = Site.RESID_PRE, self._modules
        yield self._arrives(site, self.layer, WatchedInput.BLOCK)
        if modules.norm1 is None:
            yield self._arrives(site, self.layer, WatchedInput.ATTN)
        else:
            yield self._moves(site, Site.NORM1, self._map(site, modules.norm1))
        expected = self._map(site) + self._map(Site.ATTN_OUT, modules.attn_post_norm)
        if self.layout.has_parallel_residual:
            expected = expected + self._map(Site.MLP_OUT, modules.mlp_post_norm)
        yield self._moves(site, self._resid_after_attn, expected)

    def _of_resid_mid(self) -> Iterator[Effect]:
        site, modules = Site.RESID_MID, self._modules
        if modules.norm2 is None:
            yield self._arrives(site, self.layer, WatchedInput.MLP)
        else:
            yield self._moves(site, Site.NORM2, self._map(site, modules.norm2))
        expected = self._map(site) + self._map(Site.MLP_OUT, modules.mlp_post_norm)
        yield self._moves(site, Site.RESID_POST, expected)

    def _of_resid_post(self) -> Effect:
        if self.layer + 1 < self.layout.num_layers:
            return self._arrives(Site.RESID_POST, self.layer + 1, WatchedInput.BLOCK)
        expected = self._map(Site.RESID_POST, self.layout.final_norm)
        return self._moves(Site.RESID_POST, Site.FINAL, expected)

    def _map(self, site: Site, module: nn.Module | None = None) -> Tensor:
        """[tokens, d] float32: how far the shift of `site` moves the output of `module`."""
        point = SitePoint(self.layer, site)
        with torch.inference_mode():
            probed, base = (
                hidden if module is None else module(hidden[None])[0]
                for hidden in (self.probed.after(point), self.base.before(point))
            )
            return (probed.float() - base.float()).cpu()

    def _arrives(self, site: Site, layer: int, name: WatchedInput) -> Effect:
        """The probe itself, unchanged, is what the module of `layer` is given."""
        key = (layer, name)
        for trace in (self.base, self.probed):
            if key not in trace.watched:
                raise SelfCheckError(f"self-check: no {name.value} {layer} was ever computed")
        observed = f"{name.value} of layer {layer}"
        before, after = self.base.watched[key], self.probed.watched[key]
        return self._effect(site, observed, before, after, self._map(site))

    def _moves(self, site: Site, observed: Site, expected: Tensor) -> Effect:
        point = SitePoint(self.layer, observed)
        before, after = self.base.before(point), self.probed.before(point)
        return self._effect(site, repr(observed.value), before, after, expected)

    def _effect(
        self, site: Site, observed: str, base: Tensor, probed: Tensor, expected: Tensor
    ) -> Effect:
        row = PROBE_ROWS[site]
        point = SitePoint(self.layer, site)
        return Effect(point, observed, base[row], probed[row], expected[row])
