"""The parts of docs/experiments.md: tables, figures and sentences made of results."""

from __future__ import annotations
