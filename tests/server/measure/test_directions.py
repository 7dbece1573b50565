"""What stored directions ask of whoever names them in a request for a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from server.auth.permissions import LOCAL_USER, Permission, PermissionDeniedError, Principal
from server.measure.directions import RequestDirections
from server.store.errors import DirectionNotFoundError
from steering.directions import Direction, DirectionKind
from steering.documents import DirectionRef, Intervention
from steering.errors import SteeringError
from steering.sites import Site
from tests.steering.samples import make_spec

ADMIN = Principal("abcd1234", "admin", frozenset({Permission.ADMIN}))
SPEC = make_spec(num_layers=2, num_heads=2)
WEAK, LOCKED = ("weaken:restricted",), ("restricted",)


TENSORS = {
    DirectionKind.VECTOR: {"vector": torch.ones(8)},
    DirectionKind.BASIS: {"basis": torch.eye(8)[:2]},
    DirectionKind.PLANE: {"basis": torch.eye(8)[:2]},
    DirectionKind.DIAGONAL: {"scale": torch.ones(8), "shift": torch.ones(8)},
}


def finder(
    kind: DirectionKind = DirectionKind.VECTOR, **requires: tuple[str, ...]
) -> Callable[[DirectionRef], Direction]:
    def find(reference: DirectionRef) -> Direction:
        if reference.name not in requires:
            raise DirectionNotFoundError(f"there is no {reference}")
        return Direction(
            reference.name,
            kind,
            Site.RESID_POST,
            (1,),
            TENSORS[kind],
            requires=requires[reference.name],
        )

    return find


def intervention(**fields: Any) -> Intervention:
    scope = {"tokens": ["generated"]}
    plain = {"operation": "add", "direction": "careful", "scope": scope}
    return Intervention.from_dict(plain | fields)


GATE = {"per": "request", "direction": "topic", "layer": 1, "threshold": 0.0}


@pytest.mark.parametrize(
    ("requires", "fields", "strengths", "asked"),
    [
        ((), {}, [-1.0], set()),
        (WEAK, {}, [0.0, 2.0], set()),
        (WEAK, {}, [2.0, 3.0, 3.9], set()),
        (WEAK, {}, [2.0, 4.1], {"restricted"}),
        (WEAK, {"restore_norm": True}, [1.0], {"restricted"}),
        (WEAK, {}, [2.0, -0.5], {"restricted"}),
        (WEAK, {"operation": "ablate"}, [1.0], {"restricted"}),
        (LOCKED, {}, [2.0], {"restricted"}),
        ((), {"gate": GATE}, [1.0], {"chat"}),
    ],
)
def test_a_sweep_asks_for_what_its_strengths_do(
    requires: tuple[str, ...], fields: dict[str, Any], strengths: list[float], asked: set[str]
) -> None:
    find = finder(careful=requires, topic=("chat",))
    directions = RequestDirections(find, LOCAL_USER.require, SPEC)
    steers = directions.steer(intervention(**fields), strengths, "intervention")
    assert [steer.intervention.strength for steer in steers] == strengths
    assert directions.permissions == asked
    refusing = RequestDirections(find, ADMIN.require, SPEC)
    if asked:
        with pytest.raises(PermissionDeniedError) as caught:
            refusing.steer(intervention(**fields), strengths, "intervention")
        assert caught.value.param == "intervention"
        assert refusing.permissions == set()
    else:
        refusing.steer(intervention(**fields), strengths, "intervention")


@pytest.mark.parametrize("kind", TENSORS)
@pytest.mark.parametrize("fields", [{"layers": [5]}, {"site": "embed"}, {}], ids=str)
def test_what_cannot_be_done_is_an_error_of_the_request(
    kind: DirectionKind, fields: dict[str, Any]
) -> None:
    """Also with a locked direction, and whatever the key holds."""
    for caller in (ADMIN, LOCAL_USER):
        directions = RequestDirections(finder(kind, careful=WEAK), caller.require, SPEC)
        if kind is DirectionKind.VECTOR and not fields:
            directions.steer(intervention(), [1.0], "intervention")
            continue
        with pytest.raises(SteeringError) as caught:
            directions.steer(intervention(**fields), [1.0], "intervention")
        assert (caught.value.param or "").startswith("intervention.")
        assert directions.permissions == set()


def test_reading_asks_for_less_than_making_another() -> None:
    directions = RequestDirections(finder(careful=WEAK, secret=LOCKED), ADMIN.require, SPEC)
    careful = DirectionRef("careful")
    assert directions.read(careful, "probe").name == "careful"
    for use, reference in ((directions.derive, careful), (directions.read, DirectionRef("secret"))):
        with pytest.raises(PermissionDeniedError, match="restricted") as caught:
            use(reference, "options.target")
        assert caught.value.param == "options.target"
    assert directions.permissions == set()


def test_the_field_of_what_is_missing_is_named() -> None:
    directions = RequestDirections(finder(careful=()), ADMIN.require, SPEC)
    lost = DirectionRef("lost")
    for look in (lambda: directions.read(lost, "probe"), lambda: directions.derive(lost, "probe")):
        with pytest.raises(DirectionNotFoundError) as caught:
            look()
        assert caught.value.param == "probe"
    for fields, param in (
        ({"direction": "lost"}, "intervention.direction"),
        ({"gate": GATE}, "intervention.gate.direction"),
    ):
        with pytest.raises(DirectionNotFoundError) as caught:
            directions.steer(intervention(**fields), [1.0], "intervention")
        assert caught.value.param == param
