"""Live steering: plans packed on the device, and what acts on each token of a step."""

from __future__ import annotations

from .lane_step import GateLog
from .readouts import CaptureRead, GateRead, MonitorColumns, MonitorRead, Readouts, StaticTaps
from .runtime import PreparedStep, SteeringRuntime, StepOutcome
from .static_buffers import Field, StaticBuffers
from .static_step import StaticShape, StaticSteering
from .step import StepRow

__all__ = [
    "CaptureRead",
    "Field",
    "GateLog",
    "GateRead",
    "MonitorColumns",
    "MonitorRead",
    "PreparedStep",
    "Readouts",
    "StaticBuffers",
    "StaticShape",
    "StaticSteering",
    "StaticTaps",
    "SteeringRuntime",
    "StepOutcome",
    "StepRow",
]
