"""Probes that analysis routes read."""

from __future__ import annotations

from server.api.deps import Services
from server.auth.permissions import Principal
from server.measure.probe import plan_probe
from server.store import Actor
from server.store.errors import StoreError
from steering.directions import Direction
from steering.documents import Monitor
from steering.plan import PlannedMonitor
from steering.requirements import scopes_to_read

__all__ = ["load_probe"]


async def load_probe(
    services: Services, caller: Principal, actor: Actor, monitor: Monitor
) -> tuple[PlannedMonitor, Direction]:
    """The probe a request names, compiled where it is to be read, and as it is stored.

    Raises:
        DirectionNotFoundError: There is none; `param` is `probe`.
        PermissionDeniedError: It requires a scope the key does not hold.
        SteeringError: It is no probe, or does not fit there.
    """
    resolver = services.resolver
    try:
        direction = await services.pools.reads.run(resolver.library.get, monitor.direction)
    except StoreError as error:
        error.at("probe")
        raise
    caller.require(*scopes_to_read(direction.requires), param="probe")
    planned = plan_probe(monitor, direction, resolver.spec)
    await resolver.audit_reading([direction], actor)
    return planned, direction
