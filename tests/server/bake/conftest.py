"""A store with what is baked: every tiny family has the same width and depth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from server.resolver.library import load_direction_blob
from server.store import SYSTEM, Store
from steering.directions import Direction, DirectionKind
from steering.documents import ProfileDocument
from steering.formats import dump_direction
from steering.sites import Site

WIDTH, LAYERS = 32, (0, 1, 2, 3)
_RNG = torch.Generator().manual_seed(11)


def _direction(name: str, kind: DirectionKind, **tensors: torch.Tensor) -> Direction:
    return Direction(name, kind, Site.MLP_OUT, LAYERS, tensors)


DIRECTIONS = {
    "push": _direction("push", DirectionKind.VECTOR, vector=torch.randn(WIDTH, generator=_RNG)),
    "style": _direction("style", DirectionKind.VECTOR, vector=torch.randn(WIDTH, generator=_RNG)),
    "topic": _direction("topic", DirectionKind.BASIS, basis=torch.randn(2, WIDTH, generator=_RNG)),
    "turn": _direction("turn", DirectionKind.PLANE, basis=torch.randn(2, WIDTH, generator=_RNG)),
}

# Several at one output, so that their order counts; layer 1 is dense in every family.
LINEAR: list[dict[str, Any]] = [
    {"operation": "rank_one", "direction": "push", "strength": 3.0, "site": "attn_out"},
    {"operation": "rank_one", "direction": "push", "strength": -4.0, "site": "mlp_out"},
    {"operation": "ablate", "direction": "style", "site": "attn_out", "layers": [0, 2, 3]},
    {"operation": "ablate", "direction": "topic", "strength": -0.7, "layers": [1, 2]},
    {"operation": "rotate", "direction": "turn", "angle": 30.0, "layers": [3]},
]
CONSTANT: list[dict[str, Any]] = [
    {"operation": "add", "direction": "style", "strength": 0.3, "site": "attn_out"},
    {"operation": "ablate", "direction": "push", "reference": 0.8, "layers": [2]},
]
EMBEDDING: list[dict[str, Any]] = [
    {"operation": "ablate", "direction": "style", "site": "embed", "layers": [0]},
    {"operation": "rank_one", "direction": "push", "site": "embed", "layers": [0]},
]
PROFILES = {
    "linear": LINEAR,
    "constant": [*LINEAR, *CONSTANT],
    "everywhere": [*LINEAR, *EMBEDDING],
    "late": [{**LINEAR[2], "scope": {"tokens": "generated"}}],
    "turned": [{"operation": "rotate", "direction": "turn", "angle": 30.0, "layers": [2]}],
    "empty": [],
}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bake-data")
    store = Store.open(path, load=load_direction_blob)
    for direction in DIRECTIONS.values():
        store.directions.put(direction, dump_direction(direction), by=SYSTEM)
    for name, interventions in PROFILES.items():
        document = {"interventions": interventions, "requires": ["restricted"]}
        store.profiles.save(
            ProfileDocument.from_dict(document).named(name), by=SYSTEM, publish=True
        )
    store.close()
    return path


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    opened = Store.open(data_dir, load=load_direction_blob)
    yield opened
    opened.close()
