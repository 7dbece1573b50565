"""Read-outs for analysis: directions and probes compiled by themselves, beside any steering."""

from __future__ import annotations

from collections.abc import Sequence

from server.auth.permissions import Principal
from steering.directions import Direction
from steering.documents import Monitor
from steering.plan import MonitorUse, PlannedMonitor, SteeringPlan, compile_plan
from steering.requirements import scopes_to_read

from .library import direction_at
from .resolver import Registry

__all__ = ["plan_readouts", "with_readouts"]


def plan_readouts(
    registry: Registry, monitors: Sequence[Monitor], caller: Principal, *, param: str
) -> tuple[tuple[PlannedMonitor, ...], tuple[Direction, ...]]:
    """Each monitor compiled for the loaded model, and every direction that they read.

    Blocks on the store.

    Raises:
        DirectionNotFoundError, SteeringError: With `param` like `readouts[0].direction`.
        PermissionDeniedError: A direction requires a scope the key does not hold.
    """
    paths = [f"{param}[{index}]" for index in range(len(monitors))]
    uses = [
        MonitorUse(monitor, direction_at(registry.library.get, monitor.direction, path), path)
        for monitor, path in zip(monitors, paths, strict=True)
    ]
    for use in uses:
        caller.require(*scopes_to_read(use.direction.requires), param=param)
    planned = compile_plan([], uses, registry.spec).monitors
    return planned, tuple({use.direction.reference: use.direction for use in uses}.values())


def with_readouts(
    plan: SteeringPlan | None, readouts: tuple[PlannedMonitor, ...], num_layers: int
) -> SteeringPlan:
    """The edits of a plan, and `readouts` instead of its own monitors."""
    interventions = () if plan is None else plan.interventions
    return SteeringPlan(interventions, readouts, num_layers)
