from __future__ import annotations

import dataclasses

import pytest
import torch

from steering.directions import Direction, DirectionKind
from steering.errors import (
    FormatError,
    InvalidFieldError,
    NonFiniteError,
    ShapeMismatchError,
    ZeroVectorError,
)
from steering.formats import dump_direction, load_direction, read_safetensors, write_safetensors
from steering.sites import Site

VECTOR = Direction(
    "v", DirectionKind.VECTOR, Site.RESID_POST, (1, 2), {"vector": torch.tensor([3.0, 4.0])}
)
PER_LAYER = Direction(
    "t",
    DirectionKind.TRANSPORT,
    Site.ATTN_OUT,
    (0, 3),
    {
        name: tensor
        for layer in (0, 3)
        for name, tensor in {
            f"basis.{layer}": torch.eye(2, 4),
            f"offset.{layer}": torch.zeros(2),
            f"map.{layer}": torch.zeros(2, 4, dtype=torch.bfloat16),
            f"shift.{layer}": torch.ones(4, dtype=torch.float16),
        }.items()
    },
)


@pytest.mark.parametrize("direction", [VECTOR, PER_LAYER], ids=["vector", "per-layer"])
def test_a_direction_survives_its_file(direction: Direction) -> None:
    loaded = load_direction(dump_direction(direction), "copy", version=4, tags=["x"])
    assert (loaded.kind, loaded.site, loaded.layers) == (
        direction.kind,
        direction.site,
        direction.layers,
    )
    assert loaded.digest == direction.digest
    assert loaded.reference == "copy@4"
    assert loaded.tags == ("x",)


def test_the_file_depends_on_meaning_alone() -> None:
    renamed = dataclasses.replace(
        VECTOR, name="w", version=2, tags=("x",), provenance={"method": "guess"}, requires=("y",)
    )
    moved = dataclasses.replace(VECTOR, site=Site.RESID_MID)
    assert dump_direction(renamed) == dump_direction(VECTOR)
    assert dump_direction(moved) != dump_direction(VECTOR)


def test_dump_is_a_fixed_point_of_load() -> None:
    data = dump_direction(PER_LAYER)
    assert dump_direction(load_direction(data, "again")) == data


def test_the_caller_wins_over_the_file() -> None:
    loaded = load_direction(dump_direction(VECTOR), "v", site=Site.MLP_OUT, layers=[7])
    assert (loaded.kind, loaded.site, loaded.layers) == (
        DirectionKind.VECTOR,
        Site.MLP_OUT,
        (7,),
    )


@pytest.mark.parametrize("missing", ["kind", "site", "layers"])
def test_what_neither_says_is_required(missing: str) -> None:
    data = write_safetensors({"vector": torch.ones(2)}, {"format": "pt", missing: "vector"})
    given = {"kind": DirectionKind.VECTOR, "site": Site.EMBED, "layers": (0,)}
    del given[missing]
    with pytest.raises(InvalidFieldError, match=missing) as caught:
        load_direction(data, "v", **given)  # type: ignore[arg-type]
    assert caught.value.param == missing


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "vectors"),
        ("site", "resid"),
        ("layers", "1,2"),
        ("layers", "[1.5]"),
        ("layers", "[[" * 5_000),
    ],
)
def test_broken_own_metadata_is_a_format_error(key: str, value: str) -> None:
    metadata = dict(read_safetensors(dump_direction(VECTOR)).metadata) | {key: value}
    with pytest.raises(FormatError, match="cannot be read") as caught:
        load_direction(write_safetensors(VECTOR.tensors, metadata), "v")
    assert caught.value.param == "file"


def test_own_metadata_without_a_field_is_a_format_error() -> None:
    metadata = dict(read_safetensors(dump_direction(VECTOR)).metadata)
    del metadata["site"]
    with pytest.raises(FormatError, match="site"):
        load_direction(write_safetensors(VECTOR.tensors, metadata), "v")


@pytest.mark.parametrize(
    ("tensor", "error"),
    [
        (torch.tensor([1.0, float("nan")]), NonFiniteError),
        (torch.tensor([1.0, float("inf")]), NonFiniteError),
        (torch.zeros(2), ZeroVectorError),
        (torch.ones(1, 2), ShapeMismatchError),
    ],
)
def test_tensors_are_checked_as_any_direction(tensor: torch.Tensor, error: type[Exception]) -> None:
    data = write_safetensors({"vector": tensor}, {})
    with pytest.raises(error) as caught:
        load_direction(data, "v", kind=DirectionKind.VECTOR, site=Site.EMBED, layers=(0,))
    assert caught.value.param == "tensors.vector"  # type: ignore[attr-defined]
