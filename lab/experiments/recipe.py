"""A way to steer, with a name for people and the settings it is one choice of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.demo.effects import Condition
from steering.model_spec import ModelSpec
from steering.plan import Steer, compile_plan

__all__ = ["Recipe"]


@dataclass(frozen=True, eq=False)
class Recipe:
    """Interventions that act together.

    Attributes:
        method: Name of the row it stands for.
        steers: Interventions with their directions, in order; none means the plain model.
        settings: What was set: layer, alpha and the like; JSON.
        dose: Larger is stronger, among recipes of one method; the smaller wins a tie.
        system: System prompt under which it is measured.
    """

    method: str
    steers: tuple[Steer, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    dose: float = 0.0
    system: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Name and settings as JSON."""
        return {"method": self.method, "settings": dict(self.settings)}

    def condition(self, spec: ModelSpec) -> Condition:
        """What `lab.demo.effects` measures."""
        plan = compile_plan(self.steers, [], spec) if self.steers else None
        return Condition(str(self), plan, self.system)

    def __str__(self) -> str:
        return ", ".join([self.method, *(f"{k} {v}" for k, v in self.settings.items())])
