"""Permissions that directions ask of a key, by what the key does with them.

An entry of `requires` is a permission, needed for any use, or `weaken:<permission>`, needed by
every use that might lower what the direction stands for: a refusal direction can then be read and
strengthened by everybody, and removed by the few. A direction with such an entry is called locked.

What lowers it cannot be told from the sign of a strength. Amplifying a negative projection lowers
it; so does a push at another site, or one that a restored norm turns; so does a push of the right
sign that is so long that the first token of an answer becomes a word no refusal begins with. The
rule is therefore a list of what is free, and everything else needs the permission:

    operation   `add`, or `clamp` to a minimum alone with a gain of at most 1
    gain        never negative: strength, factor and schedule together
    place       the direction's own site, and layers among its own
    tokens      phases of the request without exclusions, and no gate per token
    norm        not restored
    length      sum over layers and interventions of length / max(4 |v|, R) at most 1

`length` is that of the push: gain |v|, or gain R for unit `resid`; for `clamp` twice the minimum. v
is the stored vector and R the mean residual norm at the point, both in units of the activation; the
weight of a probe is in none of these, so R alone counts there. The bounds on tokens and length were
measured, with margins, on the embedded model: pushes along its refusal and caution directions of
every layer, alone and summed (docs/security.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from .directions import Direction
from .documents import (
    STORED,
    Add,
    Clamp,
    Intervention,
    LayerRange,
    Operation,
    Per,
    Scope,
    StrengthUnit,
    Tokens,
)
from .model_spec import ModelSpec
from .plan import Steer
from .sites import Site, SitePoint

WEAKEN: Final = "weaken:"

_MAX_VECTORS: Final = 4.0
"""How often a locked vector may be added without the permission; longest at which nothing of the
embedded model's refusals gave way was 6."""

_CLAMP_SHARE: Final = 2.0
"""A raised minimum counts double: it moves most the tokens that lie lowest."""


@dataclass(frozen=True, slots=True)
class Weakening:
    """A use of a locked direction that might lower what it stands for.

    Attributes:
        path: Where the intervention stands in the request.
        direction: The locked direction.
        why: What makes it so, for people.
    """

    path: str
    direction: Direction
    why: str

    @property
    def permissions(self) -> frozenset[str]:
        """Permissions it asks for."""
        return frozenset(map(permission_of, self.direction.requires))


def permission_of(requirement: str) -> str:
    """The permission that an entry of `requires` names."""
    return requirement.removeprefix(WEAKEN)


def permissions_to_read(requires: Iterable[str]) -> frozenset[str]:
    """Permissions needed to read a direction out: in a monitor, a gate, an analysis."""
    return frozenset(entry for entry in requires if not entry.startswith(WEAKEN))


def permissions_to_steer(steers: Sequence[Steer]) -> frozenset[str]:
    """Permissions needed for any use of what `steers` name: directions, and gates to be read.

    What locked directions ask for beyond these is for `find_weakenings` to say.
    """
    return frozenset(
        permission
        for steer in steers
        for direction in steer.directions
        for permission in permissions_to_read(direction.requires)
    )


def find_weakenings(
    steers: Sequence[Steer], spec: ModelSpec, *, moves_boundary: bool = False
) -> tuple[Weakening, ...]:
    """Every use of a locked direction that might weaken it, in order.

    Args:
        steers: Everything one request does, in order, as `compile_plan` accepts it; lengths of
            pushes add up over it.
        spec: Of the model, for residual norms.
        moves_boundary: Whether the request says itself where its prompt ends.
    """
    found: list[Weakening] = []
    total = 0.0
    for index, steer in enumerate(steers):
        direction = steer.direction
        if not is_locked(direction.requires):
            continue
        why = why_it_may_weaken(
            steer.intervention,
            direction.site,
            direction.layers,
            steer.factor,
            moves_boundary=moves_boundary,
        )
        if why is None:
            total += _length_share(steer, spec)
            if total > 1.0:
                why = (
                    "its push, with those before it, is longer than four stored vectors and than "
                    f"the mean residual norm ({total:.2g} times what is free)"
                )
        if why is not None:
            found.append(Weakening(steer.path or f"interventions[{index}]", direction, why))
    return tuple(found)


def is_locked(requires: Iterable[str]) -> bool:
    """Whether some uses of a direction ask for more than reading it."""
    return any(entry.startswith(WEAKEN) for entry in requires)


def why_it_may_weaken(
    asked: Intervention,
    site: Site,
    layers: Sequence[int],
    factor: float = 1.0,
    *,
    moves_boundary: bool = False,
) -> str | None:
    """What about an intervention is not on the list of what is free, lengths left aside.

    Args:
        asked: What is done with the direction.
        site: Where the direction is stored.
        layers: At which layers it is stored.
        factor: Multiplies the intervention's strength.
        moves_boundary: Whether the request says itself where its prompt ends.

    Returns:
        The reason in words, or None where it is free.
    """
    gains = _gains(asked, factor)
    if not any(gains):
        return None  # it does nothing
    if isinstance(asked, Clamp):
        if asked.maximum is not None:
            return "'clamp' has a maximum"
        if max(gains) > 1.0:
            return f"'clamp' has a gain of {max(gains):g}, beyond the minimum for gains above 1"
    elif asked.operation is not Operation.ADD:
        return f"operation is {asked.operation.value!r}, neither 'add' nor 'clamp' to a minimum"
    if min(gains) < 0:
        return f"its strength reaches {min(gains):g}, below 0"
    if asked.restore_norm:
        return "restore_norm is true"
    if asked.site not in (None, site):
        return f"site is {asked.site.value!r}, and the direction is stored for {site.value!r}"
    if isinstance(asked.layers, LayerRange):
        return "layers is a range; name layers, or 'stored'"
    if asked.layers != STORED and not set(asked.layers) <= set(layers):
        return f"layers is {list(asked.layers)}, and the direction is stored for {list(layers)}"
    if not _is_steady(asked.scope, moves_boundary=moves_boundary):
        return "scope names other tokens than whole phases of the request"
    if asked.gate is not None and asked.gate.per is not Per.REQUEST:
        return "its gate is decided token by token"
    return None


def _gains(asked: Intervention, factor: float) -> tuple[float, ...]:
    return tuple(asked.strength * factor * bound for bound in asked.schedule.bounds)


def _is_steady(scope: Scope, *, moves_boundary: bool) -> bool:
    """Whether a push, once there, is not taken away again within the prompt or the answer."""
    return scope.names_phases_alone and (not moves_boundary or Tokens.ALL in scope.tokens)


def _length_share(steer: Steer, spec: ModelSpec) -> float:
    """Length of a free push, over all its layers, in shares of the longest that is free."""
    asked, direction = steer.intervention, steer.direction
    gain = max(map(abs, _gains(asked, steer.factor)))
    if gain == 0:
        return 0.0
    layers = direction.layers if isinstance(asked.layers, str | LayerRange) else asked.layers
    if isinstance(asked, Add) and asked.distribute:
        gain /= len(layers)
    share = 0.0
    for layer in layers:
        point = SitePoint(layer, direction.site)
        norm = steer.resid_norms.get(point, spec.resid_norms.get(point, 0.0))
        stored = direction.lengths.get(layer, 0.0)
        if isinstance(asked, Clamp):
            length = _CLAMP_SHARE * max(asked.minimum or 0.0, 0.0)
        else:
            length = gain * (norm if asked.unit is StrengthUnit.RESID else stored)
        longest = max(_MAX_VECTORS * stored, norm)
        share += length / longest if longest > 0 else math.inf
    return share
