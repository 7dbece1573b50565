"""Pictures of what analysis found; needs the extra `evals`, except for HTML."""

from __future__ import annotations

from .cliff_plot import draw_cliffs
from .figure_file import STYLE, PlotError, blank_figure, write_figure
from .head_plot import draw_heads
from .heat_map import draw_trace
from .heat_map_page import trace_page

__all__ = [
    "STYLE",
    "PlotError",
    "blank_figure",
    "draw_cliffs",
    "draw_heads",
    "draw_trace",
    "trace_page",
    "write_figure",
]
