"""What is shipped: the page and its figures are what the shipped results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.experiments.__main__ import EXPERIMENTS
from lab.experiments.estimate import Estimate
from lab.experiments.page.page import PAGE, render
from lab.experiments.page.results import FOLDER, load
from lab.experiments.page.tables import cell, table
from tests.source_tree import ROOT

DOCS = ROOT / "docs"
RESULTS = sorted((DOCS / FOLDER).glob("*.json"))


def test_the_shipped_page_is_what_the_shipped_results_say() -> None:
    """`python -m lab.experiments --out docs` writes both."""
    rendered = render(load(DOCS))
    kept = {str(path.relative_to(DOCS)) for path in (DOCS / FOLDER).glob("*.svg")}
    assert set(rendered) == {PAGE, *kept}
    for path, text in rendered.items():
        assert (DOCS / path).read_text(encoding="utf-8") == text, path


def test_every_experiment_ships_for_the_shipped_checkpoint() -> None:
    assert set(load(DOCS)) == set(EXPERIMENTS)
    assert all(0 in by_seed for by_seed in load(DOCS).values())


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_every_interval_holds_its_value(path: Path) -> None:
    estimates = list(_estimates(json.loads(path.read_text(encoding="utf-8"))))
    assert len(estimates) > 20
    for found in estimates:
        # a hypergeometric interval of few picks may be a single count
        assert found.low - 1e-4 <= found.value <= found.high + 1e-4 or found.n < 10, found
        assert found.n > 0


def test_a_cell_shows_value_and_interval() -> None:
    assert cell(Estimate.share(5, 10).to_dict()) == "0.50 (0.24 to 0.76)"
    assert cell(None) == ""
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def _estimates(document: object) -> list[Estimate]:
    if isinstance(document, list):
        return [found for item in document for found in _estimates(item)]
    if not isinstance(document, dict):
        return []
    if set(document) == {"value", "low", "high", "n"}:
        return [Estimate.from_dict(document)]
    return [found for item in document.values() for found in _estimates(item)]
