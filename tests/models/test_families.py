"""Every family of docs/models.md is served as transformers computes it, steered or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from steering.sites import Site

from .families import FAMILIES_BY_NAME
from .paths import LLAMA
from .served import served_errors
from .table import documented_rows, family_row

_TOLERANCE = 1e-5  # of the largest logit


def test_a_site_in_the_wrong_place_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the comparison below: every operation that has the site differs by far more."""
    wrong = {**LLAMA, Site.NORM1: LLAMA[Site.ATTN_OUT]}
    family = replace(FAMILIES_BY_NAME["llama"], paths=wrong)
    monkeypatch.setitem(FAMILIES_BY_NAME, "llama", family)  # type: ignore[arg-type]
    _, errors = served_errors("llama", tmp_path)
    unmoved = {label for label, error in errors.items() if error < 1000 * _TOLERANCE}
    assert unmoved == {"plain", "scale_heads", "rank_one"}


@pytest.mark.parametrize("name", FAMILIES_BY_NAME)
def test_a_family_is_served_as_transformers_computes_it(name: str, tmp_path: Path) -> None:
    """To 1e-5 at every site, and with the sites that the page says; `make families` writes it."""
    layout, errors = served_errors(name, tmp_path)
    assert {label: error for label, error in errors.items() if not error < _TOLERANCE} == {}
    *said, plain, steered = documented_rows()[name]
    assert said == family_row(name, layout)
    assert max(float(plain), float(steered)) < _TOLERANCE
