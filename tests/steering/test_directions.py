from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from steering.directions import MIN_NORM, Direction, DirectionKind
from steering.errors import (
    InvalidFieldError,
    LayerOutOfRangeError,
    NonFiniteError,
    ShapeMismatchError,
    SteeringError,
    UnsupportedDtypeError,
    ZeroVectorError,
)
from steering.sites import Site

from .samples import make_direction, make_spec

TENSORS: dict[str, dict[str, Tensor]] = {
    "vector": {"vector": torch.tensor([3.0, 4.0, 0.0])},
    "basis": {"basis": torch.eye(2, 3)},
    "transport": {
        "basis": torch.eye(2, 3),
        "offset": torch.zeros(2),
        "map": torch.zeros(2, 3),
        "shift": torch.zeros(3),
    },
    "diagonal": {"scale": torch.ones(3), "shift": torch.zeros(3)},
    "plane": {"basis": torch.eye(2, 3)},
    "heads": {"scale": torch.zeros(3)},
    "probe": {"weight": torch.ones(3), "bias": torch.zeros(1)},
}
ALLOW_REFERENCE = {"vector", "basis"}


def direction(kind: str = "vector", tensors: dict[str, Tensor] | None = None, **fields: Any) -> Any:
    site = Site.HEADS if kind == "heads" else Site.RESID_POST
    options: dict[str, Any] = {"site": site, "layers": (1, 4)} | fields
    tensors = TENSORS[kind] if tensors is None else tensors
    return Direction("d", DirectionKind(kind), tensors=tensors, **options)


def per_layer(kind: str, layers: tuple[int, ...] = (1, 4)) -> dict[str, Tensor]:
    return {f"{name}.{i}": t.clone() for i in layers for name, t in TENSORS[kind].items()}


@pytest.mark.parametrize("kind", list(DirectionKind))
def test_every_kind_has_its_tensors_and_width(kind: str) -> None:
    single, several = direction(kind), direction(kind, per_layer(kind))
    assert single.width == several.width == 3
    assert not single.is_per_layer
    assert several.is_per_layer
    assert set(single.at(4)) == set(several.at(4)) == set(TENSORS[kind])
    assert single.is_bound == (kind in ("transport", "diagonal"))
    assert several.is_bound


@pytest.mark.parametrize("kind", list(DirectionKind))
@pytest.mark.parametrize("set_of", ["single", "per layer"])
def test_every_tensor_is_needed_and_no_other_allowed(kind: str, set_of: str) -> None:
    tensors = TENSORS[kind] if set_of == "single" else per_layer(kind)
    suffix = "" if set_of == "single" else ".4"
    for name in tensors:
        with pytest.raises(SteeringError, match=r"expects|different"):
            direction(kind, {n: t for n, t in tensors.items() if n != name})
    with pytest.raises(InvalidFieldError, match="expects"):
        direction(kind, tensors | {f"extra{suffix}": torch.ones(3)})
    with_reference = tensors | {f"reference{suffix}": torch.ones(3)}
    if kind in ALLOW_REFERENCE:
        assert "reference" in direction(kind, with_reference).at(4)
    else:
        with pytest.raises(InvalidFieldError, match="expects"):
            direction(kind, with_reference)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, tensors in TENSORS.items() for name in tensors]
)
def test_every_tensor_is_checked_and_named(kind: str, name: str) -> None:
    good = TENSORS[kind][name]
    not_finite = good.clone()
    not_finite.view(-1)[0] = torch.nan
    bad = {
        UnsupportedDtypeError: good.to(torch.float64),
        NonFiniteError: not_finite,
        ShapeMismatchError: good[None],
    }
    for error, tensor in bad.items():
        with pytest.raises(error, match=rf"^{name} .*expected") as caught:
            direction(kind, TENSORS[kind] | {name: tensor})
        assert caught.value.param == f"tensors.{name}"
        if kind != "heads":
            continue
        with pytest.raises(error):
            direction(kind, {f"{name}.1": good, f"{name}.4": tensor})


@pytest.mark.parametrize(
    ("kind", "name"),
    [("vector", "vector"), ("basis", "basis"), ("plane", "basis"), ("probe", "weight")],
)
def test_what_must_have_length_has_it(kind: str, name: str) -> None:
    short = TENSORS[kind][name].clone()
    short[..., -1:] = 0.0
    short.view(-1, 3)[-1] = torch.tensor([MIN_NORM / 2, 0.0, 0.0])
    with pytest.raises(ZeroVectorError, match="norm 5e-07; expected at least 1e-06") as caught:
        direction(kind, TENSORS[kind] | {name: short})
    assert caught.value.param == f"tensors.{name}"


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("transport", {"map": torch.zeros(3, 3)}),
        ("transport", {"offset": torch.zeros(3)}),
        ("transport", {"shift": torch.zeros(4)}),
        ("plane", {"basis": torch.eye(3)}),
        ("probe", {"bias": torch.zeros(2)}),
        ("diagonal", {"shift": torch.zeros(4)}),
        ("vector", {"reference": torch.zeros(4)}),
        ("vector", {"vector": torch.ones(0)}),
        ("basis", {"basis": torch.ones(0, 3)}),
        ("vector", {"vector": torch.tensor(1.0)}),
    ],
)
def test_shapes_must_agree(kind: str, changes: dict[str, Tensor]) -> None:
    with pytest.raises(ShapeMismatchError, match="expected"):
        direction(kind, TENSORS[kind] | changes)


@pytest.mark.parametrize(
    ("layers", "message"),
    [((), "empty"), ((2, 1), "ascending"), ((1, 1), "unique"), ((-1, 2), "from 0")],
)
def test_layers_are_ascending_and_unique(layers: tuple[int, ...], message: str) -> None:
    with pytest.raises(LayerOutOfRangeError, match=message) as caught:
        direction(layers=layers)
    assert caught.value.param == "layers"


def test_a_set_has_exactly_its_layers() -> None:
    with pytest.raises(InvalidFieldError, match=r"outside layers \[1, 4\]") as caught:
        direction(tensors=per_layer("vector", (1, 4, 5)))
    assert caught.value.param == "tensors.vector.5"
    with pytest.raises(InvalidFieldError, match="expects"):
        direction(tensors=per_layer("vector", (1,)))
    with pytest.raises(InvalidFieldError, match="outside layers"):
        direction(tensors={"vector.1": torch.ones(3), "vector.04": torch.ones(3)})
    with pytest.raises(InvalidFieldError, match="expects"):
        direction(tensors={"vector.1": torch.ones(3), "vector": torch.ones(3)})
    with pytest.raises(InvalidFieldError, match="expects"):
        direction(tensors={})
    twelve = direction(tensors=per_layer("vector", (2, 12)), layers=(2, 12))
    assert list(twelve.at(2)) == ["vector"]


def test_the_same_layer_is_named_in_whatever_order_tensors_come() -> None:
    tensors = per_layer("transport", (1, 7, 9))
    for order in (sorted(tensors), sorted(tensors, reverse=True)):
        with pytest.raises(InvalidFieldError, match="outside layers") as caught:
            direction("transport", {name: tensors[name] for name in order})
        assert caught.value.param == "tensors.basis.7"


def test_a_set_may_vary_in_rank_but_not_in_width() -> None:
    tensors = {"basis.1": torch.eye(1, 3), "basis.4": torch.eye(3)}
    assert direction("basis", tensors).width == 3
    with pytest.raises(ShapeMismatchError, match="layer 4 have width 4, those of layer 1 3"):
        direction("basis", {"basis.1": torch.eye(1, 3), "basis.4": torch.eye(1, 4)})


def test_heads_belong_to_their_site() -> None:
    with pytest.raises(InvalidFieldError, match="'resid_post' for kind 'heads'") as caught:
        direction("heads", site=Site.RESID_POST)
    assert caught.value.param == "site"


def test_digest_is_of_meaning_alone() -> None:
    base = direction()
    same = dataclasses.replace(
        base, name="e", version=9, tags=("t",), provenance={"a": 1}, requires=("r",)
    )
    assert same.digest == base.digest
    different = [
        dataclasses.replace(base, kind=DirectionKind.BASIS, tensors={"basis": torch.eye(1, 3)}),
        dataclasses.replace(base, site=Site.RESID_MID),
        dataclasses.replace(base, layers=(1,)),
        dataclasses.replace(base, tensors={"vector": torch.tensor([3.0, 4.0, 1.0])}),
        dataclasses.replace(base, tensors={"vector": base.tensors["vector"].to(torch.bfloat16)}),
        dataclasses.replace(base, tensors={f"vector.{i}": torch.ones(3) for i in (1, 4)}),
    ]
    assert len({base.digest, *(item.digest for item in different)}) == 7


def test_digest_is_of_numbers_not_of_memory() -> None:
    table = torch.tensor([[3.0, 1.0], [4.0, 1.0], [0.0, 1.0]])
    assert direction(tensors={"vector": table[:, 0]}).digest == direction().digest
    probe = {"weight": torch.ones(3), "bias": table[2:, 0]}
    assert direction("probe", probe).digest == direction("probe").digest
    trained = {"vector": TENSORS["vector"]["vector"].clone().requires_grad_()}
    assert direction(tensors=trained).digest == direction().digest


def test_tensors_cannot_be_replaced_and_reads_are_float32_copies() -> None:
    original = torch.tensor([1.0, 2.0, 3.0])
    stored = {"vector": original}
    item = direction(tensors=stored)
    stored["vector"] = torch.zeros(3)
    item.at(1)["vector"].zero_()
    assert item.at(4)["vector"].tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(TypeError):
        item.tensors["vector"] = original
    half = direction(tensors={"vector": original.to(torch.float16)})
    assert half.at(1)["vector"].dtype == torch.float32


@pytest.mark.parametrize("kind", DirectionKind)
def test_lengths_are_of_what_is_added_at_each_layer(kind: DirectionKind) -> None:
    spec = make_spec()
    site = Site.HEADS if kind is DirectionKind.HEADS else Site.RESID_POST
    made = make_direction(kind, site, (0, 2), spec, seed=3)
    is_added = kind is DirectionKind.VECTOR
    expected = {at: float(made.at(at)["vector"].norm()) for at in made.layers if is_added}
    assert made.lengths == pytest.approx(expected, rel=1e-6)


def test_one_vector_has_its_length_at_every_layer() -> None:
    tensors = {"vector": torch.tensor([3.0, 4.0])}
    shared = Direction("d", DirectionKind.VECTOR, Site.RESID_POST, (1, 4), tensors)
    assert shared.lengths == {1: 5.0, 4: 5.0}


def test_references_name_the_version() -> None:
    assert direction().reference == "d"
    assert direction(version=3).reference == "d@3"
