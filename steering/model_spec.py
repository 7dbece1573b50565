"""The numbers of a loaded model that steering is checked and compiled against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from .errors import LayerOutOfRangeError, SiteUnavailableError
from .sites import READ_ONLY_SITES, Site, SitePoint

SINK_RATIO: Final = 8.0
"""Times the median length of a text's activations from which on a token is an attention sink."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a profile needs to know of a model; holds no tensors and no modules.

    Attributes:
        name: Name under which the model is served.
        family: `model_type` of its configuration.
        fingerprint: Hash of everything that changes its numbers.
        num_layers: Decoder blocks, L.
        hidden_size: Width of the residual stream, d.
        num_heads: Query heads per layer.
        head_dim: Width of one head.
        unavailable_sites: Sites the architecture does not have, each with the reason.
        resid_norms: Mean residual norm per point, for the strength unit `resid`: over the tokens
            of built-in neutral text without attention sinks, measured at load.
        write_bias_means: mean(c) of the bias c of the matrix writing to `attn_out` or `mlp_out`;
            points without a bias are absent, and None is one that depends on the token, as of
            experts that have one each. Used by `rank_one`.
        max_abs: Largest finite value of the dtype the model runs in.
    """

    name: str
    family: str
    fingerprint: str
    num_layers: int
    hidden_size: int
    num_heads: int
    head_dim: int
    unavailable_sites: Mapping[Site, str] = field(default_factory=dict)
    resid_norms: Mapping[SitePoint, float] = field(default_factory=dict)
    write_bias_means: Mapping[SitePoint, float | None] = field(default_factory=dict)
    max_abs: float = 3.0e38

    def width(self, site: Site) -> int:
        """Width of an activation at `site`."""
        return self.num_heads * self.head_dim if site is Site.HEADS else self.hidden_size

    def require_site(self, site: Site, *, editable: bool, param: str = "site") -> None:
        """Check that the model has `site`, and that it may be edited if asked.

        Raises:
            SiteUnavailableError: It has not, or the site is read only.
        """
        if site in self.unavailable_sites:
            reason = self.unavailable_sites[site]
            raise SiteUnavailableError(
                f"{param} is {site.value!r}, which {self.name} does not have: {reason}",
                param=param,
            )
        if editable and site in READ_ONLY_SITES:
            raise SiteUnavailableError(
                f"{param} is {site.value!r}, which is read only; edit 'resid_post' of the last "
                f"layer ({self.num_layers - 1}) instead, or use it for a monitor",
                param=param,
            )

    def require_layer(self, layer: int, *, param: str = "layers") -> None:
        """Check that the model has `layer`.

        Raises:
            LayerOutOfRangeError: It has not.
        """
        if not 0 <= layer < self.num_layers:
            raise LayerOutOfRangeError(
                f"{param} contains {layer}; {self.name} has layers 0 to {self.num_layers - 1}",
                param=param,
            )
