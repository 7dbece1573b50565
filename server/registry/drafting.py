"""Checking and saving profiles: every problem at once, norms frozen, what it would do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from server.auth.permissions import Principal, allow_weakenings
from server.resolver.errors import InvalidProfileError, Problem
from server.resolver.library import DirectionLibrary, direction_at
from server.store import Actor, ProfileRecord, SaveResult, Store
from server.store.errors import NameReservedError, NotFoundError
from server.store.names import check_name, check_requires
from steering.directions import Direction
from steering.documents import DirectionRef, Intervention, Monitor, Profile, ProfileDocument
from steering.errors import InvalidFieldError, SteeringError
from steering.model_spec import ModelSpec
from steering.plan import (
    MonitorUse,
    PlannedEdit,
    PlannedIntervention,
    Steer,
    SteeringPlan,
    compile_plan,
)
from steering.requirements import (
    Weakening,
    find_weakenings,
    permissions_to_read,
    permissions_to_steer,
)
from steering.sites import SitePoint

MAX_INTERVENTIONS: Final = 64
"""Most interventions, and most monitors, of one profile."""

_LISTS: Final = frozenset({"interventions", "monitors"})
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class CheckedProfile:
    """A profile that fits the model, what it compiles to, and what it asks of a key.

    Attributes:
        profile: The profile, each direction named with the version that was checked.
        plan: What it compiles to.
        needed: Permissions its directions ask for by this use, beside the profile's own `requires`.
        weakenings: Its uses that might weaken a locked direction.
    """

    profile: Profile
    plan: SteeringPlan
    needed: frozenset[str]
    weakenings: tuple[Weakening, ...]

    def resid_norms(self, spec: ModelSpec) -> dict[SitePoint, float]:
        """Residual norms at every point it edits, as far as they are known."""
        points = {
            SitePoint(layer, item.site) for item in self.plan.interventions for layer in item.layers
        }
        return {point: spec.resid_norms[point] for point in points if point in spec.resid_norms}

    def report(self, spec: ModelSpec) -> list[dict[str, Any]]:
        """Per intervention: what is applied where, and its dose at each layer."""
        return [{**item.report(), "doses": _doses(item, spec)} for item in self.plan.interventions]


@dataclass(frozen=True, slots=True)
class Drafting:
    """Checks profiles against one model, and saves them.

    Attributes:
        store: Where they go.
        library: Directions they name.
        spec: Model they must fit.
    """

    store: Store
    library: DirectionLibrary
    spec: ModelSpec

    def check(self, name: str, document: Mapping[str, Any]) -> CheckedProfile:
        """Read and compile a profile without saving it.

        Raises:
            InvalidProfileError: With everything that is wrong.
            StoreError: A direction cannot be read.
        """
        problems = _Problems()
        problems.of(check_name, name)
        unknown = next((key for key in document if key not in ProfileDocument.known()), None)
        if unknown is not None:
            problems.add(ProfileDocument.unknown(unknown))
        own = {k: v for k, v in document.items() if k in ProfileDocument.known() - _LISTS}
        profile = problems.of(lambda: ProfileDocument.from_dict(own).named(name))
        if profile is not None:
            problems.of(check_requires, profile.requires)
        steers = self._read(document, "interventions", self._steer, problems)
        monitors = self._read(document, "monitors", self._monitor, problems)
        if not problems.found and not (steers or monitors):
            problems.add(
                InvalidFieldError(
                    "a profile needs at least one intervention or monitor", param="interventions"
                )
            )
        plan = problems.of(compile_plan, steers, monitors, self.spec)
        if problems.found or profile is None or plan is None:
            raise InvalidProfileError(problems.found)
        weakenings = find_weakenings(steers, self.spec)
        needed = permissions_to_steer(steers).union(
            *(weakening.permissions for weakening in weakenings),
            *(permissions_to_read(use.direction.requires) for use in monitors),
        )
        profile = profile.model_copy(
            update={
                "interventions": tuple(map(_pinned_step, steers)),
                "monitors": tuple(
                    use.monitor.model_copy(update={"direction": _version(use.direction)})
                    for use in monitors
                ),
            }
        )
        return CheckedProfile(profile, plan, needed, weakenings)

    def save(
        self,
        name: str,
        document: Mapping[str, Any],
        *,
        caller: Principal,
        by: Actor,
        publish: bool,
        expected: str | None = None,
    ) -> SaveResult[ProfileRecord]:
        """Check a profile and store it with its directions pinned and its norms frozen.

        Raises:
            InvalidProfileError: With everything that is wrong; nothing is stored.
            PermissionDeniedError: `caller` may not use its directions so; nothing is stored.
            StoreError: The name cannot be used, or was changed meanwhile; a direction cannot be
                read.
        """
        checked = self.check(name, document)
        allow_weakenings(checked.weakenings, caller)
        caller.require(*checked.needed, param="interventions")
        return self.store.profiles.save(
            checked.profile,
            by=by,
            needed=checked.needed,
            model_fingerprint=self.spec.fingerprint,
            resid_norms=checked.resid_norms(self.spec),
            publish=publish,
            expected=expected,
        )

    def publish(
        self,
        name: str,
        version: int | None,
        *,
        caller: Principal,
        by: Actor,
        expected: str | None = None,
    ) -> ProfileRecord:
        """Publish a version, or the newest listed one.

        Raises:
            ProfileNotFoundError: No such listed version.
            PermissionDeniedError: `caller` may not use its directions so.
            PreconditionFailedError: The name was changed since `expected`.
        """
        found = self.store.profiles.get(name, version, include_drafts=True)
        needed = set(found.requires) - set(found.profile.requires)
        for reference in map(DirectionRef.parse, found.directions):
            used = self.store.directions.get(
                reference.name, reference.version, include_archived=True
            )
            needed |= permissions_to_read(used.requires)
        caller.require(*needed, param="name")
        return self.store.profiles.publish(found.name, found.version, by=by, expected=expected)

    def _read(
        self,
        document: Mapping[str, Any],
        key: str,
        use: Callable[[Any, str], _T],
        problems: _Problems,
    ) -> list[_T]:
        """The entries of a list that can be used; a problem for each that cannot."""
        items = document.get(key) or []
        if not isinstance(items, list) or len(items) > MAX_INTERVENTIONS:
            problems.add(
                InvalidFieldError(
                    f"{key} is not a list of at most {MAX_INTERVENTIONS} objects", param=key
                )
            )
            return []
        values = (problems.of(use, item, f"{key}[{i}]") for i, item in enumerate(items))
        return [value for value in values if value is not None]

    def _steer(self, document: Any, path: str) -> Steer:
        intervention: Intervention = _from_dict(Intervention, document, path)
        direction = direction_at(self.library.get, intervention.direction, path)
        steer = Steer(intervention, direction, path=path)
        if intervention.gate is not None:
            gate = direction_at(self.library.get, intervention.gate.direction, f"{path}.gate")
            steer = replace(steer, gate_direction=gate)
        compile_plan([steer], (), self.spec)
        return steer

    def _monitor(self, document: Any, path: str) -> MonitorUse:
        monitor: Monitor = _from_dict(Monitor, document, path)
        use = MonitorUse(monitor, direction_at(self.library.get, monitor.direction, path), path)
        compile_plan((), [use], self.spec)
        return use


class _Problems:
    """Collects what goes wrong."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, error: SteeringError | NotFoundError | NameReservedError) -> None:
        self.found.append(Problem(error.code, error.param, str(error)))

    def of(self, work: Callable[..., _T], *args: Any, **kwargs: Any) -> _T | None:
        """The result of `work`; None, and a problem, where the document is at fault.

        Faults of the store pass through: the document may be right.
        """
        try:
            return work(*args, **kwargs)
        except (SteeringError, NotFoundError, NameReservedError) as error:
            self.add(error)
            return None


def _pinned_step(steer: Steer) -> Intervention:
    asked, gate = steer.intervention, steer.intervention.gate
    if gate is not None and steer.gate_direction is not None:
        gate = gate.model_copy(update={"direction": _version(steer.gate_direction)})
    return asked.model_copy(update={"direction": _version(steer.direction), "gate": gate})


def _version(direction: Direction) -> DirectionRef:
    return DirectionRef(direction.name, direction.version)


def _from_dict(reader: Any, document: Any, path: str) -> Any:
    if not isinstance(document, Mapping):
        raise InvalidFieldError(f"{path} is not an object; expected one", param=path)
    try:
        return reader.from_dict(document)
    except SteeringError as error:
        raise error.under(path) from None


def _doses(item: PlannedIntervention, spec: ModelSpec) -> dict[str, float | None]:
    """|strength| * |shift| / mean residual norm, by layer; None where it has no constant shift."""
    return {str(planned.point.layer): _dose(item.strength, planned, spec) for planned in item.edits}


def _dose(strength: float, planned: PlannedEdit, spec: ModelSpec) -> float | None:
    norm, shift = spec.resid_norms.get(planned.point), planned.edit.shift
    if norm is None or shift is None:
        return None
    return abs(strength) * float(shift.norm()) / norm
