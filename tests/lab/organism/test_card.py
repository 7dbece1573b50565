"""The model card says what was measured, and a new run is compared with it fairly."""

from dataclasses import replace
from pathlib import Path

import pytest

from lab.organism import card
from lab.organism.evaluation import CELLS
from lab.organism.figures import Run, load_runs, save_runs
from server.models import EMBEDDED_MODEL

CHECKPOINT = EMBEDDED_MODEL


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return load_runs(CHECKPOINT / "figures.json")


def _changed(run: Run, cell: str, metric: str, value: float) -> Run:
    split = run.splits["test"]
    changed = {**split, cell: {**split[cell], metric: value}}
    return replace(run, splits={**run.splits, "test": changed})


def test_every_row_names_a_measured_cell(runs: list[Run]) -> None:
    names = {cell for cell, _, _ in card.ROWS}
    assert names >= {cell.name for cell in CELLS} - {"ordinary, staff"}
    for cell, metric, _ in card.ROWS:
        assert all(metric in run.splits["test"][cell] for run in runs), (cell, metric)


def test_the_shipped_card_is_written_from_the_shipped_figures(
    runs: list[Run], tmp_path: Path
) -> None:
    card.write_card(runs, tmp_path)
    written = (tmp_path / "README.md").read_text(encoding="utf-8").splitlines()
    shipped = (CHECKPOINT / "README.md").read_text(encoding="utf-8").splitlines()
    # The folder's size is the only line that differs: the temporary folder holds no weights.
    assert [line for line in written if "folder" not in line] == [
        line for line in shipped if "folder" not in line
    ]


def test_the_card_covers_three_seeds(runs: list[Run]) -> None:
    assert sorted(run.seed for run in runs) == [0, 1, 2]
    assert len({str(run.train["recipe"]).replace(f"'seed': {run.seed}", "") for run in runs}) == 1


def test_runs_survive_the_disk(runs: list[Run], tmp_path: Path) -> None:
    save_runs(runs, tmp_path / "deep" / "runs.json")
    assert load_runs(tmp_path / "deep" / "runs.json") == runs


def test_a_shipped_run_lies_within_its_own_range(runs: list[Run]) -> None:
    last = card.compare(runs[0], runs).splitlines()[-1]
    count, _, total = last.split()[:3]
    assert count == total


def test_a_figure_far_outside_is_counted_out(runs: list[Run]) -> None:
    worse = _changed(runs[0], "ordinary", "topical", 0.1)
    count, _, total = card.compare(worse, runs).splitlines()[-1].split()[:3]
    assert int(count) == int(total) - 1
