"""Tables and figures of the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from lab.experiments.estimate import Estimate
from lab.experiments.observation import KL, PERPLEXITY

COLORS: Final = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2", "#97bbf5")
"""Of lines, in order; told apart also by people who see colours differently."""

_STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "coxswain",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
}


@contextmanager
def panels(count: int, *, height: float = 3.2) -> Iterator[tuple[Figure, list[Any]]]:
    """A figure with panels side by side, in one style."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.2 * count, height), layout="constrained")
        yield figure, [figure.add_subplot(1, count, index + 1) for index in range(count)]


def svg(figure: Figure) -> str:
    """The figure's text; call it inside `panels`."""
    written = StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines()) + "\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, without a newline at its end."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured_table(
    rows: Sequence[Mapping[str, Any]], set_as: str, columns: Mapping[str, str]
) -> str:
    """A line for each measured way to steer: what was set, rates by column, perplexity and KL."""
    lines = [
        [
            row["method"],
            settings(row),
            *(cell(row["test"][key]) for key in columns.values()),
            cell(row["test"][PERPLEXITY], 3),
            cell(row["test"][KL], 4),
        ]
        for row in rows
    ]
    return table(["", set_as, *columns, "perplexity", "KL"], lines)


def cell(found: Mapping[str, Any] | None, digits: int = 2) -> str:
    """An estimate as JSON has it: value and interval; empty where it was not measured."""
    if found is None:
        return ""
    estimate = Estimate.from_dict(found)
    ends = f"{estimate.low:.{digits}f} to {estimate.high:.{digits}f}"
    return f"{estimate.value:.{digits}f} ({ends})"


def settings(row: Mapping[str, Any]) -> str:
    """What was set, in short."""
    return ", ".join(_setting(name, value) for name, value in row["settings"].items())


def _setting(name: str, value: Any) -> str:
    if not isinstance(value, list):
        return f"{name} {value:g}"
    if len(value) == 1:
        return f"{name.removesuffix('s')} {value[0]}"
    shown = f"{value[0]} to {value[-1]}" if len(value) > 2 else " and ".join(map(str, value))
    return f"{name} {shown}"
