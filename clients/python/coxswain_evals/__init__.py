"""Evaluations: treatments beside controls, with intervals, against any server.

`load_suite` reads a suite, `run_suite` asks a server, `Results.read` makes numbers of what was
kept, `write_report` writes them down. `calibrate` measures a judge against labels of people.
"""

from __future__ import annotations

from .calibration import Calibration, calibrate, installed_file
from .data import read_labelled
from .errors import EvaluationError, SuiteError
from .report import render_comparison, write_report
from .results import Results
from .run import run_suite
from .suite import DEFAULT_JUDGES, Suite
from .suite_file import LoadedSuite, load_suite

__all__ = [
    "DEFAULT_JUDGES",
    "Calibration",
    "EvaluationError",
    "LoadedSuite",
    "Results",
    "Suite",
    "SuiteError",
    "calibrate",
    "installed_file",
    "load_suite",
    "read_labelled",
    "render_comparison",
    "run_suite",
    "write_report",
]
