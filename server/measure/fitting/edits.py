"""A fitted direction as edits, the way its method means it, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from steering.direction_ref import DirectionRef
from steering.directions import Direction, DirectionKind
from steering.fit import Method
from steering.interventions import Intervention, Operation
from steering.layer_selection import LayerRange
from steering.model_spec import ModelSpec
from steering.plan import Steer, SteeringPlan, compile_plan
from steering.scopes import Scope, Selector, Tokens
from steering.sites import Site, SitePoint

__all__ = ["apply_plan", "bypass_plan", "dose_resid_norms", "reading_vector"]

_WRITES: Final = (Site.RESID_PRE, Site.ATTN_OUT, Site.MLP_OUT)
_FIELDS: Final[dict[Operation, dict[str, Any]]] = {Operation.ROTATE_TO: {"angle": 0.0}}


def apply_plan(
    direction: Direction, method: Method, spec: ModelSpec, *, strength: float, scope: Tokens
) -> SteeringPlan | None:
    """The method's operation on tokens of `scope`, where the direction is stored.

    `rotate_to` turns to its first axis. None for a method whose direction is read, not applied.
    """
    if method.operation is None:
        return None
    asked = Intervention(
        method.operation,
        DirectionRef("fitted"),
        strength=strength,
        scope=Scope(Selector(tokens=(scope,))),
        **_FIELDS.get(method.operation, {}),
    )
    return _plan([asked], direction, spec)


def bypass_plan(direction: Direction, spec: ModelSpec) -> SteeringPlan:
    """The direction ablated wherever the model writes to or reads the residual stream.

    Source: Arditi et al. 2024, arXiv:2406.11717 (directional ablation).
    """
    everywhere = LayerRange(0.0, 1.0)
    return _plan(
        [
            Intervention(Operation.ABLATE, DirectionRef("fitted"), everywhere, site)
            for site in _WRITES
            if site not in spec.unavailable_sites
        ],
        direction,
        spec,
    )


def reading_vector(direction: Direction, layer: int, positive: Tensor, negative: Tensor) -> Tensor:
    """[d] to project samples on: the vector, probe weight or first axis.

    For maps, which have none, the difference in means of positive [N, d] and negative [M, d].
    """
    name = {
        DirectionKind.VECTOR: "vector",
        DirectionKind.PROBE: "weight",
        DirectionKind.BASIS: "basis",
        DirectionKind.PLANE: "basis",
    }.get(direction.kind)
    if name is None:
        return positive.mean(dim=0) - negative.mean(dim=0)
    found = direction.at(layer)[name]
    return found[0] if found.ndim == 2 else found


def dose_resid_norms(
    direction: Direction, method: Method, hidden: Mapping[int, Tensor], spec: ModelSpec
) -> dict[int, float]:
    """Mean length of what strength 1 adds to hidden {layer: [N, d]}, in mean norms there.

    Empty for methods that are not applied and for rotations, which add nothing of a fixed length.
    """
    doses = {}
    for layer in direction.layers:
        added = _added(direction, method, layer, hidden[layer])
        norm = spec.resid_norms.get(SitePoint(layer, direction.site))
        if added is not None and norm:
            doses[layer] = float(added.norm(dim=-1).mean()) / norm
    return doses


def _added(direction: Direction, method: Method, layer: int, hidden: Tensor) -> Tensor | None:
    tensors = {name: tensor.float() for name, tensor in direction.at(layer).items()}
    match method.operation:
        case Operation.ADD:
            return tensors["vector"]
        case Operation.ABLATE:
            return (hidden @ tensors["basis"].T) @ tensors["basis"]
        case Operation.TRANSPORT:
            reads = hidden @ tensors["basis"].T - tensors["offset"]
            return reads @ tensors["map"] + tensors["shift"]
        case Operation.DIAGONAL:
            return hidden * (tensors["scale"] - 1.0) + tensors["shift"]
        case _:
            return None


def _plan(interventions: list[Intervention], direction: Direction, spec: ModelSpec) -> SteeringPlan:
    return compile_plan([Steer(asked, direction) for asked in interventions], [], spec)
