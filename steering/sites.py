"""Where in a transformer block an activation can be read or edited."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from .errors import UnknownSiteError, short_repr


class Site(StrEnum):
    """A named place in the computation of one layer; in the order in which a layer computes them.

    Every site carries one activation per token. Its width is the hidden size, except `HEADS`,
    whose width is `num_heads * head_dim`. `EMBED` belongs to layer 0 and `FINAL` to the last layer.
    """

    EMBED = (
        "embed"  # output of the token embedding (after Gemma's scaling, before GPT-2's positions)
    )
    RESID_PRE = "resid_pre"  # input of block l
    NORM1 = "norm1"  # output of the norm before attention
    HEADS = "heads"  # input of the attention output projection, heads concatenated
    ATTN_OUT = "attn_out"  # output of its output projection, before any norm, factor and the add
    RESID_MID = "resid_mid"  # after the attention add
    NORM2 = "norm2"  # output of the norm before the MLP
    MLP_OUT = "mlp_out"  # output of the MLP, before any norm, factor and the add
    RESID_POST = "resid_post"  # output of block l
    FINAL = "final"  # after the final norm; read only


_ORDER: Final = {site: index for index, site in enumerate(Site)}
READ_ONLY_SITES = frozenset({Site.FINAL})


class SitePoint(NamedTuple):
    """One site of one layer (0-based)."""

    layer: int
    site: Site

    @property
    def rank(self) -> tuple[int, int]:
        """Place in the order of the forward pass; of two points the lower is computed first."""
        return self.layer, _ORDER[self.site]


def sole_layer(site: Site, num_layers: int) -> int | None:
    """The one layer that has `site`: 0 for `EMBED`, the last for `FINAL`; None where all have."""
    return {Site.EMBED: 0, Site.FINAL: num_layers - 1}.get(site)


def parse_site(name: str, *, param: str = "site") -> Site:
    """The site called `name`.

    Raises:
        UnknownSiteError: No site has that name; the message lists those that exist.
    """
    try:
        return Site(name)
    except ValueError:
        known = ", ".join(site.value for site in Site)
        raise UnknownSiteError(
            f"{param} is {short_repr(name)}; expected one of {known}", param=param
        ) from None
