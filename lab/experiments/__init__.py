"""What steering does to the embedded model, measured: `python -m lab.experiments`."""

from __future__ import annotations
