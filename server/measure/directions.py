"""Stored directions that a request names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from server.resolver.library import direction_at
from server.store.errors import StoreError
from steering.directions import Direction
from steering.documents import DirectionRef, Intervention
from steering.model_spec import ModelSpec
from steering.plan import Steer, compile_plan
from steering.requirements import (
    find_weakenings,
    permission_of,
    permissions_to_read,
    permissions_to_steer,
)


class AllowPermissions(Protocol):
    """Raises PermissionDeniedError where one of several permissions is not held."""

    def __call__(self, *permissions: str, param: str) -> None:
        """Check the permissions that a direction named by the field `param` requires."""
        ...


class RequestDirections:
    """Finds the directions of one request and asks for what they require. Blocks on the store.

    A job's request is read when it arrives, with the caller's permissions. A name without version
    may mean another direction when the job begins: it is then read again, with the permissions
    the job was given.

    Every method raises StoreError where there is no such direction or its file is damaged, and
    PermissionDeniedError where it may not be used so; `param` names the field.
    """

    def __init__(
        self, find: Callable[[DirectionRef], Direction], allow: AllowPermissions, spec: ModelSpec
    ) -> None:
        """Find directions by `find`, check permissions by `allow`, compile for `spec`."""
        self._source = find
        self._allow = allow
        self._spec = spec
        self._permissions: set[str] = set()
        self._found: dict[DirectionRef, Direction] = {}

    @property
    def permissions(self) -> frozenset[str]:
        """All permissions that the directions found so far require."""
        return frozenset(self._permissions)

    def is_current(self) -> bool:
        """Whether every reference found so far still names the same direction, asking for as much.

        Whatever was derived from this request's directions then holds as it would if it were
        derived again.
        """
        try:
            return all(_same(self._source(ref), found) for ref, found in self._found.items())
        except StoreError:
            return False

    def read(self, reference: DirectionRef, param: str) -> Direction:
        """Return a direction that is read and not applied, such as a probe."""
        direction = self._named(reference, param)
        self._require(permissions_to_read(direction.requires), param)
        return direction

    def derive(self, reference: DirectionRef, param: str) -> Direction:
        """Return a direction from which another is made, which may then be used in any way."""
        direction = self._named(reference, param)
        self._require(map(permission_of, direction.requires), param)
        return direction

    def steer(self, asked: Intervention, strengths: Iterable[float], param: str) -> list[Steer]:
        """Return an intervention at each of several strengths, with its directions.

        Raises:
            SteeringError: The intervention cannot be compiled for this model.
        """
        direction, gate = direction_at(self._find, asked.direction, param), None
        if asked.gate is not None:
            gate = direction_at(self._find, asked.gate.direction, f"{param}.gate")
        steers = [
            Steer(
                asked.model_copy(update={"strength": strength}),
                direction,
                path=param,
                gate_direction=gate,
            )
            for strength in strengths
        ]
        needed = set(permissions_to_steer(steers))
        self._require(needed, param)
        for steer in steers:  # each is a run of its own, so their lengths do not add up
            compile_plan([steer], [], self._spec)  # what cannot be done asks for nothing
            for weakening in find_weakenings([steer], self._spec):
                needed |= weakening.permissions
        self._require(needed, param)
        return steers

    def _find(self, reference: DirectionRef) -> Direction:
        found = self._found[reference] = self._source(reference)
        return found

    def _named(self, reference: DirectionRef, param: str) -> Direction:
        try:
            return self._find(reference)
        except StoreError as error:
            error.at(param)
            raise

    def _require(self, permissions: Iterable[str], param: str) -> None:
        needed = set(permissions)
        self._allow(*sorted(needed), param=param)
        self._permissions |= needed


def _same(now: Direction, before: Direction) -> bool:
    return (now.reference, now.digest, now.requires) == (
        before.reference,
        before.digest,
        before.requires,
    )
