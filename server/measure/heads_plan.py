"""Which heads a probe can see, and plans that scale some of them while it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from steering.analysis import Head, heads_direction
from steering.errors import InvalidFieldError
from steering.interventions import Intervention
from steering.model_spec import ModelSpec
from steering.plan import PlannedMonitor, Steer, SteeringPlan, compile_plan
from steering.sites import Site

__all__ = ["ablation_document", "num_visible_layers", "scaled_plan"]

_BEFORE_ATTENTION: Final = frozenset({Site.EMBED, Site.RESID_PRE, Site.NORM1, Site.HEADS})


def num_visible_layers(probe: PlannedMonitor) -> int:
    """Layers, from the first on, whose heads act on what the probe reads.

    Raises:
        InvalidFieldError: None.
    """
    layer, site = probe.point
    count = layer + (site not in _BEFORE_ATTENTION)
    if count == 0:
        raise InvalidFieldError(
            f"the probe {probe.label} is read at {site.value!r} of layer {layer}, which no "
            "attention head acts on; read it later in the model",
            param="probe",
        )
    return count


def ablation_document(direction: str) -> dict[str, object]:
    """The intervention that scales heads as a direction says, norms restored per token."""
    return {"operation": "scale_heads", "direction": direction}


def scaled_plan(
    heads: Sequence[Head], gamma: float, probe: PlannedMonitor, spec: ModelSpec
) -> SteeringPlan:
    """The probe read while `heads` are scaled by `gamma`; unsteered where there are none."""
    if not heads:
        return SteeringPlan((), (probe,), spec.num_layers)
    direction = heads_direction(heads, name="heads", num_heads=spec.num_heads, gamma=gamma)
    steer = Steer(Intervention.from_dict(ablation_document("heads")), direction)
    edits = compile_plan([steer], [], spec).interventions
    return SteeringPlan(edits, (probe,), spec.num_layers)
