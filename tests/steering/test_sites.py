from __future__ import annotations

import pytest

from steering.errors import LayerOutOfRangeError, SiteUnavailableError, UnknownSiteError
from steering.model_spec import ModelSpec
from steering.sites import READ_ONLY_SITES, Site, parse_site

SPEC = ModelSpec(
    name="tiny",
    family="neox",
    fingerprint="f",
    num_layers=3,
    hidden_size=10,
    num_heads=4,
    head_dim=2,
    unavailable_sites={Site.RESID_MID: "attention and MLP run in parallel"},
)


def test_sites_are_read_by_name() -> None:
    assert [parse_site(site.value) for site in Site] == list(Site)
    for name in ("resid", "RESID_POST", "", "x" * 10**5):
        with pytest.raises(UnknownSiteError, match=r"expected one of embed, .*, final") as caught:
            parse_site(name, param="monitors[0].site")
        assert caught.value.param == "monitors[0].site"
        assert len(str(caught.value)) < 300


def test_widths() -> None:
    assert {SPEC.width(site) for site in Site if site is not Site.HEADS} == {10}
    assert SPEC.width(Site.HEADS) == 8


def test_sites_the_model_does_not_have_say_why() -> None:
    for editable in (True, False):
        with pytest.raises(SiteUnavailableError, match="tiny does not have: attention and MLP"):
            SPEC.require_site(Site.RESID_MID, editable=editable)
    SPEC.require_site(Site.RESID_POST, editable=True)


def test_read_only_sites_can_be_read() -> None:
    assert frozenset({Site.FINAL}) == READ_ONLY_SITES
    SPEC.require_site(Site.FINAL, editable=False)
    with pytest.raises(SiteUnavailableError, match=r"read only; edit 'resid_post'.*\(2\)"):
        SPEC.require_site(Site.FINAL, editable=True)


@pytest.mark.parametrize("layer", [-1, 3, 10**30])
def test_layers_the_model_does_not_have(layer: int) -> None:
    SPEC.require_layer(2)
    with pytest.raises(LayerOutOfRangeError, match="layers 0 to 2") as caught:
        SPEC.require_layer(layer, param="layer")
    assert caught.value.param == "layer"
