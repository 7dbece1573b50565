"""Evaluations: treatments beside controls, with intervals, against any server.

`load_suite` reads a suite, `run_suite` asks a server, `Results.read` makes numbers of what was
kept, `write_report` writes them down.
"""

from __future__ import annotations

from .errors import EvaluationError, SuiteError
from .report import render_comparison, write_report
from .results import Results
from .run import run_suite
from .suite import Suite
from .suite_file import LoadedSuite, load_suite

__all__ = [
    "EvaluationError",
    "LoadedSuite",
    "Results",
    "Suite",
    "SuiteError",
    "load_suite",
    "render_comparison",
    "run_suite",
    "write_report",
]
