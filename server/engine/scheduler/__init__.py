"""Chooses the tokens that the next step computes; no tensors."""

from __future__ import annotations

from .admission import SchedulerLimits, check_request
from .pace import Pace, SpeedMeter, Work
from .prompt_lookup import PromptLookup
from .scheduler import Scheduler
from .scheduler_output import ScheduledRequest, SchedulerOutput
from .steering_slots import RuntimeSlots

__all__ = [
    "Pace",
    "PromptLookup",
    "RuntimeSlots",
    "ScheduledRequest",
    "Scheduler",
    "SchedulerLimits",
    "SchedulerOutput",
    "SpeedMeter",
    "Work",
    "check_request",
]
