"""What is free to do with a locked direction, and what asks for the permission."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from steering.directions import Direction, DirectionKind
from steering.documents import Intervention, Operation, PositionContext
from steering.plan import Steer
from steering.requirements import (
    find_weakenings,
    permissions_to_read,
    permissions_to_steer,
    why_it_may_weaken,
)
from steering.sites import Site, SitePoint

from .oracle import steer_tokens
from .samples import make_spec, random_steer

REQUIRES = ("inline", "weaken:restricted")
RISING = {"kind": "ramp", "start": 0.5, "end": 2.0, "tokens": 4}
FALLING = {"kind": "ramp", "start": 1.0, "end": -2.0, "tokens": 4}
GATE = {"direction": "g", "threshold": 0.0}
SPEC = make_spec(num_layers=4)  # mean residual norms 2, 3, 4, 5

FREE: list[tuple[dict[str, Any], float]] = [
    ({}, 1.0),
    ({"strength": 0.0, "operation": "ablate"}, 1.0),
    ({"operation": "rank_one"}, 0.0),
    ({"strength": -2.0}, -1.0),
    ({"schedule": RISING}, 1.0),
    ({"schedule": FALLING, "strength": 0.0}, 1.0),
    ({"schedule": {"kind": "decay", "factor": 0.5}}, 1.0),
    ({"layers": [1]}, 1.0),
    ({"layers": "stored"}, 1.0),
    ({"site": "resid_post"}, 1.0),
    ({"unit": "resid", "strength": 0.4}, 1.0),
    ({"scope": {"tokens": "prompt"}}, 1.0),
    ({"scope": {"tokens": ["last_prompt", "generated"]}}, 1.0),
    ({"operation": "clamp", "minimum": 1.0}, 1.0),
    ({"operation": "clamp", "minimum": -9.0}, 1.0),
    ({"gate": GATE | {"per": "request"}, "scope": {"tokens": "generated"}}, 1.0),
]
GUARDED: list[tuple[dict[str, Any], float, str]] = [
    ({}, -1.0, "strength reaches -1"),
    ({"schedule": FALLING}, 1.0, "strength reaches -2"),
    ({"schedule": FALLING, "strength": -1.0}, 1.0, "strength reaches -1"),
    ({"operation": "ablate"}, 1.0, "operation is 'ablate'"),
    ({"operation": "ablate", "strength": -1.0}, 1.0, "operation is 'ablate'"),
    ({"operation": "ablate", "strength": -1.0, "reference": 1e4}, 1.0, "operation is 'ablate'"),
    ({"operation": "clamp", "minimum": 1.0}, -1.0, "strength reaches -1"),
    ({"operation": "clamp", "minimum": 1.0}, 1.1, "gain of 1.1"),
    ({"operation": "clamp", "minimum": 1.0, "maximum": 2.0}, 1.0, "maximum"),
    ({"operation": "clamp", "maximum": 2.0}, 1.0, "maximum"),
    ({"operation": "set", "value": 3.0}, 1.0, "operation is 'set'"),
    ({"operation": "rank_one"}, 1.0, "operation is 'rank_one'"),
    ({"operation": "transport"}, 1.0, "operation is 'transport'"),
    ({"operation": "rotate", "angle": 10.0}, 1.0, "operation is 'rotate'"),
    ({"operation": "scale_heads"}, -1.0, "operation is 'scale_heads'"),
    ({"restore_norm": True}, 1.0, "restore_norm"),
    ({"site": "resid_pre"}, 1.0, "site is 'resid_pre'"),
    ({"layers": [1, 3]}, 1.0, r"layers is \[1, 3\]"),
    ({"layers": {"from": 0.4, "to": 0.8}}, 1.0, "layers is a range"),
    ({"scope": {"windows": [[0, 9]]}}, 1.0, "scope"),
    ({"scope": {"tokens": "generated", "generated_windows": [[0, 3]]}}, 1.0, "scope"),
    ({"scope": {"prompt_indices": [-1]}}, 1.0, "scope"),
    ({"scope": {"regions": "answer"}}, 1.0, "scope"),
    ({"scope": {"tokens": "all", "exclude": {"tokens": "last_prompt"}}}, 1.0, "scope"),
    ({"gate": GATE | {"per": "token"}}, 1.0, "gate"),
]


def use(change: dict[str, Any], factor: float = 1.0, **fields: Any) -> Steer:
    """A vector of length 2 that is locked at layers 1 and 2, used as `change` says."""
    direction = Direction(
        "d",
        DirectionKind.VECTOR,
        Site.RESID_POST,
        (1, 2),
        {"vector": torch.full((16,), 0.5)},
        requires=REQUIRES,
        **fields,
    )
    document = {"operation": "add", "direction": "d", "layers": [1, 2], **change}
    return Steer(Intervention.from_dict(document), direction, factor=factor)


@pytest.mark.parametrize(("change", "factor"), FREE, ids=str)
def test_what_is_free(change: dict[str, Any], factor: float) -> None:
    steer = use(change, factor)
    assert find_weakenings([steer], SPEC) == ()
    assert permissions_to_steer([steer]) == permissions_to_read(REQUIRES) == {"inline"}


@pytest.mark.parametrize(("change", "factor", "why"), GUARDED, ids=str)
def test_everything_else_asks_and_says_why(change: dict[str, Any], factor: float, why: str) -> None:
    steer = use(change, factor)
    [found] = find_weakenings([replace(steer, path="x[3]")], SPEC)
    assert found.permissions == {"inline", "restricted"}
    assert (found.path, found.direction) == ("x[3]", steer.direction)
    assert re.search(why, found.why)


def test_an_unlocked_direction_asks_for_nothing_more() -> None:
    for change, factor, _ in GUARDED:
        steer = use(change, factor)
        steer = replace(steer, direction=replace(steer.direction, requires=("inline",)))
        assert find_weakenings([steer], SPEC) == ()


@pytest.mark.parametrize("scope", ["all", "prompt", "generated", "last_prompt"])
def test_a_boundary_of_the_request_s_own_makes_windows_of_phases(scope: str) -> None:
    steer = use({"scope": {"tokens": scope}})
    assert find_weakenings([steer], SPEC) == ()
    found = find_weakenings([steer], SPEC, moves_boundary=True)
    assert (found == ()) is (scope == "all")


@pytest.mark.parametrize(
    ("change", "longest"),
    [
        # one layer: four vectors of 2 make 8, more than the residual norms 3 and 4
        ({"layers": [1]}, 4.0),
        ({"layers": [1, 2]}, 2.0),
        ({"layers": "stored"}, 2.0),
        ({"layers": [1], "unit": "resid"}, 8 / 3),
        ({"layers": [1, 2], "unit": "resid"}, 8 / 7),
        ({"layers": [1], "schedule": {"kind": "ramp", "start": 1.0, "end": 2.0, "tokens": 9}}, 2.0),
    ],
    ids=str,
)
def test_a_push_may_be_so_long_and_no_longer(change: dict[str, Any], longest: float) -> None:
    assert find_weakenings([use({**change, "strength": 0.999 * longest})], SPEC) == ()
    [found] = find_weakenings([use({**change, "strength": 1.001 * longest})], SPEC)
    assert "longer than four stored vectors" in found.why
    half = use({**change, "strength": 0.4 * longest})
    assert find_weakenings([half, half], SPEC) == ()
    assert find_weakenings([half, use({}), half, half], SPEC) != (), "lengths add up"
    assert find_weakenings([half, replace(half, factor=2.0)], SPEC) != ()


def test_where_no_norm_is_known_only_the_vector_counts() -> None:
    for norm, longest in ((0.0, 8.0), (100.0, 100.0)):
        norms = {SitePoint(1, Site.RESID_POST): norm} if norm else {}
        spec = replace(SPEC, resid_norms=norms)
        for share in (0.99, 1.01):
            steer = use({"layers": [1], "strength": share * longest / 2})
            assert (find_weakenings([steer], spec) == ()) is (share < 1)
            clamp = {"operation": "clamp", "layers": [1], "minimum": share * longest / 2}
            assert (find_weakenings([use(clamp)], spec) == ()) is (share < 1)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_a_probe_s_weight_is_no_measure_of_a_push(scale: float) -> None:
    """A minimum is in units of the activation, a weight in one over them."""
    tensors = {"weight": torch.full((16,), scale), "bias": torch.zeros(1)}
    probe = Direction("p", DirectionKind.PROBE, Site.RESID_POST, (1,), tensors, requires=REQUIRES)
    for minimum, is_free in ((-9.0, True), (1.49, True), (1.51, False), (100.0, False)):
        document = {"operation": "clamp", "direction": "p", "minimum": minimum}
        steer = Steer(Intervention.from_dict(document), probe)
        assert (find_weakenings([steer], SPEC) == ()) is is_free, minimum


def test_norms_frozen_into_a_profile_count_before_the_model_s() -> None:
    steer = use({"layers": [1], "unit": "resid", "strength": 1.0})
    frozen = {SitePoint(1, Site.RESID_POST): 9.0}
    assert find_weakenings([replace(steer, resid_norms=frozen)], SPEC) == ()
    assert find_weakenings([replace(steer, resid_norms=frozen, factor=1.1)], SPEC) != ()


def test_no_free_use_lowers_a_projection_at_its_point() -> None:
    """Over random interventions of every kind, against the float64 oracle."""
    rng = np.random.default_rng(0)
    operations = [operation for operation in Operation if operation is not Operation.SCALE_HEADS]
    num_free = 0
    for _ in range(1500):
        operation = operations[int(rng.integers(len(operations)))]
        if rng.random() < 0.6:
            operation = Operation.ADD if rng.random() < 0.5 else Operation.CLAMP
        steer = random_steer(operation, Site.RESID_POST, (1, 2), SPEC, rng)
        strength = float(rng.uniform(-1.5, 1.5))
        locked = replace(steer.direction, requires=REQUIRES)
        asked = steer.intervention.model_copy(update={"strength": strength})
        steer = replace(steer, direction=locked, intervention=asked)
        if find_weakenings([steer], SPEC) or strength == 0:
            continue
        num_free += 1
        for layer in locked.layers:
            tensors = locked.at(layer)
            vector = tensors["vector" if "vector" in tensors else "weight"].to(torch.float64)
            hidden = 5 * torch.from_numpy(rng.normal(size=(12, 16)))
            point, context = SitePoint(layer, Site.RESID_POST), PositionContext(8)
            after = steer_tokens(hidden, [steer], point, SPEC, 0, context)
            raised = (after - hidden) @ vector
            assert bool((raised >= -1e-9).all()), steer.intervention.to_dict()
    assert num_free > 50


def test_the_reason_is_none_for_what_does_nothing() -> None:
    for change, _, _ in GUARDED:
        document = {"operation": "add", "direction": "d", **change, "strength": 0.0}
        asked = Intervention.from_dict(document)
        assert why_it_may_weaken(asked, Site.RESID_POST, (1, 2)) is None
