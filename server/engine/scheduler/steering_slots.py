"""The scheduler's view of the steering tables: places that requests take and give back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from server.engine.errors import SteeringCapacityError

if TYPE_CHECKING:
    from steering.plan import SteeringPlan
    from steering.runtime import SteeringRuntime


class SteeringSlots(Protocol):
    """Places for live edits: a request runs only while it holds those of its plan."""

    def check_capacity(self, plan: SteeringPlan) -> None:
        """Check that the plan fits alone.

        Raises:
            SteeringCapacityError: It never can.
        """
        ...

    def can_admit(self, plan: SteeringPlan) -> bool:
        """Whether the plan fits beside those that hold places now."""
        ...

    def acquire(self, plan: SteeringPlan) -> None:
        """Take the plan's places, sharing those of equal edits; `can_admit` was just true."""
        ...

    def release(self, plan: SteeringPlan) -> None:
        """Give back what one `acquire` of this plan took."""
        ...


class RuntimeSlots:
    """`SteeringSlots` on a `SteeringRuntime`: a place is a column of its tables."""

    def __init__(self, runtime: SteeringRuntime) -> None:
        self._runtime = runtime

    def check_capacity(self, plan: SteeringPlan) -> None:
        limit = self._runtime.max_live_edits
        if len(plan.interventions) > limit:
            raise SteeringCapacityError(
                f"the request has {len(plan.interventions)} interventions; this server holds "
                f"{limit} at once; use fewer, or raise max_live_edits",
                param="steering",
            )

    def can_admit(self, plan: SteeringPlan) -> bool:
        return self._runtime.can_admit(plan)

    def acquire(self, plan: SteeringPlan) -> None:
        self._runtime.acquire(plan)

    def release(self, plan: SteeringPlan) -> None:
        self._runtime.release(plan)
