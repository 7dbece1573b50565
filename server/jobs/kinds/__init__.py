"""Every kind of job there is, one module for each."""

from __future__ import annotations

from .cliff import CLIFF
from .cliff_probe import CLIFF_PROBE
from .fit import FIT
from .heads import HEADS
from .sweep import SWEEP

__all__ = ["CLIFF", "CLIFF_PROBE", "FIT", "HEADS", "KINDS", "SWEEP"]

KINDS = (FIT, SWEEP, CLIFF_PROBE, CLIFF, HEADS)
"""In the order capabilities lists them."""
