"""Plots of analyses and of dose and response; all but HTML pages need the extra `evals`."""

from __future__ import annotations

from .analysis import draw_cliffs, draw_heads, draw_trace, trace_page
from .dose_response import draw_dose_responses
from .figure_file import PlotError

__all__ = [
    "PlotError",
    "draw_cliffs",
    "draw_dose_responses",
    "draw_heads",
    "draw_trace",
    "trace_page",
]
