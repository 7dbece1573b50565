"""Live steering: plans packed on the device, and what acts on each token of a step."""

from __future__ import annotations

from .readouts import CaptureRead, GateRead, MonitorRead, Readouts
from .runtime import SteeringRuntime, StepOutcome
from .step import StepRow

__all__ = [
    "CaptureRead",
    "GateRead",
    "MonitorRead",
    "Readouts",
    "SteeringRuntime",
    "StepOutcome",
    "StepRow",
]
