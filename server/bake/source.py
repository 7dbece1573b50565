"""What is to be baked: the steering of a profile, or of a direction with options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.resolver.library import DirectionLibrary
from server.store import Store
from steering.directions import Direction
from steering.documents import DirectionRef, Intervention, Operation
from steering.formats import load_direction
from steering.plan import Steer
from steering.sites import Site
from steering.weights.errors import WeightEditError

from .options import BakeOperation, BakeOptions


@dataclass(frozen=True, eq=False)
class BakeSource:
    """Steering to bake.

    Attributes:
        label: For people: `cautious@2`, or what is done with which direction.
        steers: The interventions with their directions, in order.
        requires: Permissions a key of a server would need to use it.
        notes: What a checkpoint cannot carry of it.
        record: What the provenance file says of it.
    """

    label: str
    steers: Sequence[Steer]
    requires: tuple[str, ...]
    notes: tuple[str, ...]
    record: Mapping[str, Any]


def profile_source(text: str, store: Store) -> BakeSource:
    """Return the steering of a stored profile, drafts included.

    No scope is checked: whoever can read the store's files is trusted.

    Raises:
        StoreError: There is no such profile, or one of its files is damaged.
    """
    found = store.aliases.resolve(text)
    library = DirectionLibrary(store)
    steers = []
    for item in found.profile.interventions:
        direction = library.get(item.direction, include_archived=True)
        steers.append(Steer(item, direction, resid_norms=found.resid_norms))
    notes = []
    if found.profile.monitors:
        notes.append(f"{len(found.profile.monitors)} monitors are not part of a checkpoint")
    return BakeSource(
        label=found.reference,
        steers=steers,
        requires=found.requires,
        notes=tuple(notes),
        record={
            "profile": found.reference,
            "fingerprint": found.fingerprint,
            "document": found.profile.to_dict(),
        },
    )


def direction_source(options: BakeOptions, direction: Direction, num_layers: int) -> BakeSource:
    """Return a direction used at the write matrices of the chosen layers, with strength 1."""
    assert options.direction is not None, "checked by BakeOptions"
    assert options.operation is not None, "checked by BakeOptions"
    layers = tuple(range(num_layers)) if options.layers is None else options.layers
    places = [(Site.ATTN_OUT, layers), (Site.MLP_OUT, layers)]
    if options.embeddings:
        places.append((Site.EMBED, (0,)))
    operation, strength = _OPERATIONS[options.operation]
    steers = [
        Steer(
            Intervention.from_dict(
                {
                    "operation": operation,
                    "direction": DirectionRef(direction.name),
                    "layers": at,
                    "site": site,
                    "strength": strength,
                }
            ),
            direction,
        )
        for site, at in places
    ]
    return BakeSource(
        label=f"{options.operation} with {options.direction.name}",
        steers=steers,
        requires=direction.requires,
        notes=(),
        record={
            "operation": options.operation.value,
            "file": options.direction.name,
            "relative": options.relative,
        },
    )


_OPERATIONS: Mapping[BakeOperation, tuple[Operation, float]] = {
    BakeOperation.RANK_ONE: (Operation.RANK_ONE, 1.0),
    BakeOperation.RANK_ONE_CALIBRATED: (Operation.RANK_ONE, 1.0),
    BakeOperation.AMPLIFY: (Operation.ABLATE, -1.0),
    BakeOperation.ABLATE: (Operation.ABLATE, 1.0),
}


def read_direction(path: Path) -> Direction:
    """Read a direction's file.

    Raises:
        WeightEditError: The file cannot be read.
        SteeringError: It holds no direction.
    """
    try:
        return load_direction(path.read_bytes(), path.stem)
    except OSError as error:
        raise WeightEditError(
            f"direction {str(path)!r} cannot be read: {error}", param="direction"
        ) from None
