"""A demo: what it is fitted on, what it must do, and one setting of it that is tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from steering.directions import Direction
from steering.documents import DecaySchedule, Intervention
from steering.model_spec import ModelSpec
from steering.plan import Steer, SteeringPlan, compile_plan

from .criterion import Criterion
from .fits import Fits


def use(direction: Direction, **document: Any) -> Steer:
    """A direction with the intervention that `document` describes without naming it."""
    return Steer(Intervention.from_dict({"direction": direction.name, **document}), direction)


@dataclass(frozen=True, eq=False)
class Variant:
    """A direction with its intervention."""

    steer: Steer

    def plan(self, spec: ModelSpec, factor: float = 1.0) -> SteeringPlan:
        """Compiled, with `factor` on the strength as a request may give it."""
        return compile_plan([replace(self.steer, factor=factor)], [], spec)

    def dose(self, spec: ModelSpec) -> float:
        """How far it moves an activation, in mean residual norms, summed over its layers.

        An edit that only replaces a component counts as the length of one unit direction, because
        how far it moves depends on the activation.
        """
        total = 0.0
        (planned,) = self.plan(spec).interventions
        for item in planned.edits:
            moved = item.edit.shift if item.edit.shift is not None else item.edit.write
            assert moved is not None, "every edit writes"
            total += abs(planned.strength) * float(moved.norm()) / spec.resid_norms[item.point]
        return total

    def label(self, spec: ModelSpec) -> str:
        """What is done where, in short."""
        (report,) = self.plan(spec).reports()
        layers = ", ".join(map(str, report["layers"]))
        tokens = str(report["scope"]["tokens"]).replace("_", " ")
        fitted = self.steer.direction.layers
        origin = "" if list(fitted) == report["layers"] else f" of layer {fitted[0]}"
        schedule = self.steer.intervention.schedule
        fading = schedule.factor if isinstance(schedule, DecaySchedule) else 1.0
        fades = "" if fading == 1.0 else f" x {fading:g}^t"
        return (
            f"{report['operation']} {report['direction']}{origin} x {report['strength']:g}{fades} "
            f"after layer {layers}, tokens: {tokens}"
        )


@dataclass(frozen=True, slots=True)
class Demo:
    """A profile and how it comes about.

    Attributes:
        profile: Its name.
        description: For people.
        criterion: What its variant is chosen by.
        variants: What it is chosen from.
        requires: Scopes a key must hold to use it.
        monitors: Directions of other demos read beside it.
    """

    profile: str
    description: str
    criterion: Criterion
    variants: Callable[[Fits], Sequence[Variant]]
    requires: tuple[str, ...] = ()
    monitors: tuple[str, ...] = ()
