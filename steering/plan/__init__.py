"""Plans: what interventions do at each point of a model, and with which gain at each position."""

from __future__ import annotations

from .compile_plan import MonitorUse, Steer, compile_plan
from .plan import PlannedMonitor, SteeringPlan
from .planned_intervention import Lane, PlannedEdit, PlannedGate, PlannedIntervention

__all__ = [
    "Lane",
    "MonitorUse",
    "PlannedEdit",
    "PlannedGate",
    "PlannedIntervention",
    "PlannedMonitor",
    "Steer",
    "SteeringPlan",
    "compile_plan",
]
