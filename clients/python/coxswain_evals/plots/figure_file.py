"""Figures as files: the same numbers draw the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from coxswain_client.errors import SteeringClientError

STYLE: Final[dict[Any, Any]] = {"svg.hashsalt": "coxswain", "font.size": 8}
"""Settings of matplotlib under which figures are made and written; the salt fixes ids in SVG."""

_KINDS: Final = (".png", ".svg")
_PNG_DPI: Final = 120


class PlotError(SteeringClientError):
    """A picture cannot be drawn; the message says what to change."""


def save_figure(
    path: Path, size: tuple[float, float], draw: Callable[[Any], None], *, rows: int = 1
) -> None:
    """Write a figure of `size` inches as PNG or SVG, by the name's ending.

    Args:
        path: File that is written.
        size: Width and height in inches.
        draw: Fills the axes of the figure: one, or an array of `rows`.
        rows: Axes, one below the other.

    Raises:
        PlotError: Another ending, or matplotlib is not installed.
    """
    if path.suffix.lower() not in _KINDS:
        raise PlotError(f"{path} ends with {path.suffix!r}; expected .png or .svg")
    if find_spec("matplotlib") is None:
        raise PlotError("pictures need matplotlib: install the extra coxswain[evals]")
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = blank_figure(size)
        draw(figure.subplots(rows, 1))
        write_figure(figure, path)


def blank_figure(size: tuple[float, float]) -> Any:
    """A figure of `size` inches that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_figure(figure: Any, path: Path) -> None:
    """Write a figure as SVG, without a date, or as PNG, by the name's ending."""
    if path.suffix.lower() == ".svg":
        figure.savefig(path, format="svg", metadata={"Date": None})
    else:
        figure.savefig(path, format="png", dpi=_PNG_DPI)
