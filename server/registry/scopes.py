"""Scopes that steering asks of a key, by what it does with its directions."""

from __future__ import annotations

from steering.plan import Steer
from steering.requirements import scopes_to_read, scopes_to_steer

__all__ = ["scopes_of"]


def scopes_of(steer: Steer) -> frozenset[str]:
    """Scopes that an intervention asks for: its direction's by its use, its gate's to read it."""
    needed = scopes_to_steer(steer.direction.requires, steer.intervention, steer.factor)
    gate = steer.gate_direction
    return needed if gate is None else needed | scopes_to_read(gate.requires)
