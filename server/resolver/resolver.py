"""Resolves a request's choice of steering into a plan that the caller may use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from server.auth.permissions import Permission, Principal, allow_weakenings
from server.last_known import LastKnown
from server.pools import Pools
from server.store import Actor, ProfileRecord, ProfileStatus, Store
from server.store.errors import ProfileNotFoundError, StoreError
from steering.directions import Direction
from steering.documents import Monitor
from steering.errors import InvalidFieldError
from steering.model_spec import ModelSpec
from steering.plan import MonitorUse, PlannedMonitor, Steer, SteeringPlan, compile_plan
from steering.requirements import find_weakenings, permissions_to_read, permissions_to_steer

from .choice import NONE, Compose, NamedProfile, SteeringChoice
from .errors import NothingToCompareError, SteeringConflictError, StrengthOutOfRangeError
from .library import DirectionLibrary, direction_at
from .lru import LruCache
from .resolution import ResolvedSteering
from .view import NotKnownError, RegistryView, RegistryViews

_MAX_PLANS: Final = 1024
_USE: Final = "steering.restricted_use"


@dataclass(frozen=True, slots=True)
class _RestrictedUse:
    """The audit log's entry for a use of something restricted."""

    subject: str
    detail: Mapping[str, Any]


class Resolver:
    """Turns what requests choose into plans for the loaded model.

    The profile of a request is the first of: the body's, the model name's or the header's choice
    (which must agree), the key's default, the server's default.

    Args:
        store: Profiles and directions.
        spec: The loaded model.
        pools: The threads that ask the store and compile plans.
        default_profile: The server's default, or None.
    """

    def __init__(
        self, store: Store, spec: ModelSpec, pools: Pools, default_profile: str | None = None
    ) -> None:
        self._store = store
        self._spec = spec
        self._default = default_profile
        self._plans: LruCache[str, SteeringPlan] = LruCache(_MAX_PLANS)
        self.library = DirectionLibrary(store)
        self._pools = pools
        self._views = RegistryViews(store, self.library)
        self._known: LastKnown[int, RegistryView] = LastKnown(pools.reads, limit=1)

    @property
    def spec(self) -> ModelSpec:
        """The model plans are compiled for."""
        return self._spec

    def has_default(self, caller: Principal) -> bool:
        """Whether a request that chooses nothing may be steered all the same."""
        return bool(caller.default_profile or self._default)

    async def resolve(
        self, choice: SteeringChoice, caller: Principal, actor: Actor
    ) -> ResolvedSteering:
        """The steering a request chooses; on the event loop.

        What this server changed holds at once, what another did within seconds. While the store
        does not answer, names that were used lately mean what they meant, for a bounded time; a
        restricted use is in the audit log first, and so waits for it.

        Raises:
            StoreUnavailableError: A name is not known, and the store does not say.
            Exception: As `_choose`.
        """
        view = await self._known.get(self._store.audit.changes, self._views.now)
        try:
            resolved, use = await self._pools.quick.run(
                self._choose, choice, caller, view.remembered()
            )
        except NotKnownError:
            resolved, use = await self._pools.reads.run(self._choose, choice, caller, view)
        if use is not None:
            await self._pools.writes.run(
                self._store.audit.append, _USE, use.subject, by=actor, detail=use.detail
            )
        return resolved

    def _choose(
        self, choice: SteeringChoice, caller: Principal, view: RegistryView
    ) -> tuple[ResolvedSteering, _RestrictedUse | None]:
        """The steering a request chooses, and what is to be audited of it.

        Raises:
            SteeringConflictError: Two explicit choices disagree.
            ProfileNotFoundError, DirectionNotFoundError: Unknown names.
            PermissionDeniedError: The key may not use what it chose.
            StrengthOutOfRangeError: A strength that the profile does not offer.
            SteeringError: The steering cannot be compiled for this model.
        """
        if choice.interventions:
            caller.require(Permission.INLINE, param="steering.interventions")
        profiles = self._profiles(choice, caller, view)
        chosen = profiles[-1] if profiles else None
        factor = _strength(choice, chosen, caller)
        steers, monitors = self._parts(profiles, factor, choice, view)
        requires = {entry for record in profiles for entry in record.requires}
        requires |= permissions_to_steer(steers)
        requires.update(*(permissions_to_read(use.direction.requires) for use in monitors))
        caller.require(*requires, param="steering")
        plan = self._plan(steers, monitors)
        weakenings = find_weakenings(steers, self._spec, moves_boundary=choice.moves_boundary)
        allow_weakenings(weakenings, caller)
        requires.update(*(weakening.permissions for weakening in weakenings))
        use = _restricted_use(profiles, choice) if Permission.RESTRICTED in requires else None
        if choice.is_compared and not steers:
            raise NothingToCompareError(
                "compare is true, but nothing is steered; choose a profile or send interventions",
                param="steering.compare",
            )
        resolved = ResolvedSteering(
            profile=None if chosen is None else chosen.name,
            version=None if chosen is None else chosen.version,
            plan=None if plan.is_empty else plan,
            strength=factor,
            is_inline=bool(choice.interventions),
            is_compared=choice.is_compared,
            prompt_tokens=choice.prompt_tokens,
        )
        return resolved, use

    def _profiles(
        self, choice: SteeringChoice, caller: Principal, view: RegistryView
    ) -> list[ProfileRecord]:
        """The profiles that apply, in order; the last is the one reported."""
        is_none = [named.text == NONE for named in choice.named]
        records = [_explicit(named, caller, view) for named in choice.named if named.text != NONE]
        if len({record.reference for record in records}) > 1 or (any(is_none) and records):
            places = " and ".join(named.param for named in choice.named)
            raise SteeringConflictError(
                f"{places} choose different profiles; choose one", param=choice.named[0].param
            )
        if any(is_none):
            return []
        is_added = choice.compose is Compose.ADD
        if not is_added and (records or choice.interventions):
            return records[:1]
        return [*self._default_of(caller, view), *records[:1]]

    def _default_of(self, caller: Principal, view: RegistryView) -> list[ProfileRecord]:
        default = caller.default_profile or self._default
        if default is None or default == NONE:
            return []
        return [_published(default, "default profile", caller, view)]

    def _parts(
        self,
        profiles: Sequence[ProfileRecord],
        factor: float,
        choice: SteeringChoice,
        view: RegistryView,
    ) -> tuple[list[Steer], list[MonitorUse]]:
        pinned = partial(view.direction, include_archived=True)
        named = partial(direction_at, view.direction)
        steers: list[Steer] = []
        monitors: list[MonitorUse] = []
        for position, record in enumerate(profiles, start=1):
            # By position: the default and the choice may be one version, and one cached object.
            is_chosen = position == len(profiles)
            path = "steering.profile" if is_chosen else "default_profile"
            scale = factor if is_chosen else 1.0
            for index, item in enumerate(record.profile.interventions):
                steers.append(
                    Steer(
                        item,
                        pinned(item.direction),
                        scale,
                        record.resid_norms,
                        f"{path}.interventions[{index}]",
                        None if item.gate is None else pinned(item.gate.direction),
                    )
                )
            for index, monitor in enumerate(record.profile.monitors):
                direction = pinned(monitor.direction)
                monitors.append(MonitorUse(monitor, direction, f"{path}.monitors[{index}]"))
        for index, item in enumerate(choice.interventions):
            path = f"steering.interventions[{index}]"
            direction = named(item.direction, path)
            gate = None if item.gate is None else named(item.gate.direction, f"{path}.gate")
            steers.append(Steer(item, direction, path=path, gate_direction=gate))
        for index, monitor in enumerate(choice.monitors):
            path = f"steering.monitors[{index}]"
            monitors.append(MonitorUse(monitor, named(monitor.direction, path), path))
        return steers, monitors

    def _plan(self, steers: Sequence[Steer], monitors: Sequence[MonitorUse]) -> SteeringPlan:
        """The compiled plan, or that in the cache; everything that decides it is in the key."""
        key = json.dumps(
            [
                [
                    [
                        s.intervention.to_dict(),
                        [direction.reference for direction in s.directions],
                        s.factor,
                        s.path,
                        sorted((p.layer, p.site, norm) for p, norm in s.resid_norms.items()),
                    ]
                    for s in steers
                ],
                [[m.monitor.to_dict(), m.direction.reference, m.path] for m in monitors],
            ]
        )
        return self._plans.get_or(key, lambda: compile_plan(steers, monitors, self._spec))

    def plan_readouts(
        self, monitors: Sequence[Monitor], caller: Principal, *, param: str
    ) -> tuple[tuple[PlannedMonitor, ...], tuple[Direction, ...]]:
        """Each monitor compiled for the loaded model, and every direction that they read.

        For analyses, which read by themselves, beside any steering. Blocks on the store.

        Raises:
            DirectionNotFoundError, SteeringError: With `param` like `readouts[0].direction`.
            PermissionDeniedError: A direction requires a permission the key does not hold.
        """
        paths = [f"{param}[{index}]" for index in range(len(monitors))]
        uses = [
            MonitorUse(monitor, direction_at(self.library.get, monitor.direction, path), path)
            for monitor, path in zip(monitors, paths, strict=True)
        ]
        for use in uses:
            caller.require(*permissions_to_read(use.direction.requires), param=param)
        planned = compile_plan([], uses, self._spec).monitors
        return planned, tuple({use.direction.reference: use.direction for use in uses}.values())

    async def audit_reading(self, directions: Iterable[Direction], actor: Actor) -> None:
        """Record that an analysis reads those that are restricted; others ask nothing of the store.

        Raises:
            StoreError: It cannot be recorded.
        """
        for direction in directions:
            if Permission.RESTRICTED in permissions_to_read(direction.requires):
                await self.audit_direction(direction.reference, actor)

    async def audit_direction(self, reference: str, actor: Actor) -> None:
        """Record that a restricted direction, `name@version`, is used.

        Raises:
            StoreError: It cannot be recorded.
        """
        subject = f"direction {reference}"
        await self._pools.writes.run(self._store.audit.append, _USE, subject, by=actor)


def _restricted_use(profiles: Sequence[ProfileRecord], choice: SteeringChoice) -> _RestrictedUse:
    subject = ", ".join(record.reference for record in profiles) or "inline"
    detail = {
        "strength": choice.strength,
        "interventions": [item.to_dict() for item in choice.interventions],
    }
    return _RestrictedUse(f"profile {subject}", detail)


def _explicit(named: NamedProfile, caller: Principal, view: RegistryView) -> ProfileRecord:
    reference = named.reference()
    caller.require_profile(reference.name, param=named.param)
    return _published(named.text, named.param, caller, view)


def _published(text: str, param: str, caller: Principal, view: RegistryView) -> ProfileRecord:
    try:
        record = view.profile(text)
    except StoreError as error:
        error.at(param)
        raise
    is_draft = record.status is ProfileStatus.DRAFT
    if is_draft and Permission.ADMIN not in caller.permissions:
        raise ProfileNotFoundError(
            f"{record.reference} is not published; publish it, or choose another", param=param
        )
    return record


def _strength(choice: SteeringChoice, profile: ProfileRecord | None, caller: Principal) -> float:
    """The factor on the profile's strengths."""
    if choice.strength is None:
        return 1.0
    if profile is None:
        raise InvalidFieldError(
            "strength is given, but no profile is chosen that it could scale; set the strength of "
            "each intervention instead",
            param="steering.strength",
        )
    most = profile.profile.max_strength
    if 0.0 <= choice.strength <= most:
        return choice.strength
    if not choice.ignores_max_strength:
        raise StrengthOutOfRangeError(
            f"strength is {choice.strength:g}; expected 0 to {most:g} for profile {profile.name!r} "
            "(another one takes ignore_max_strength: true, and of a key the scope 'inline')",
            param="steering.strength",
        )
    caller.require(Permission.INLINE, param="steering.ignore_max_strength")
    return choice.strength


def with_readouts(
    plan: SteeringPlan | None, readouts: tuple[PlannedMonitor, ...], num_layers: int
) -> SteeringPlan:
    """The edits of a plan, and `readouts` instead of its own monitors."""
    interventions = () if plan is None else plan.interventions
    return SteeringPlan(interventions, readouts, num_layers)
