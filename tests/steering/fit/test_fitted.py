from __future__ import annotations

import dataclasses

import pytest
import torch

from steering.directions import Direction
from steering.errors import FitError
from steering.fit import combine_layers
from steering.fit.fitters.gaussian_transport import fit_gaussian_transport
from steering.fit.fitters.means import fit_mean_difference
from steering.sites import Site


def vector(layer: int, value: float = 1.0) -> Direction:
    rows = torch.eye(3)
    return fit_mean_difference(rows + value, rows, name="v", layer=layer, model_fingerprint="f")


def test_each_layer_keeps_its_tensors_and_provenance() -> None:
    combined = combine_layers([vector(5, 2.0), vector(1)], name="set")
    assert (combined.name, combined.layers) == ("set", (1, 5))
    assert combined.is_per_layer
    assert combined.at(5)["vector"].tolist() == [2.0, 2.0, 2.0]
    assert combined.at(1)["vector"].tolist() == [1.0, 1.0, 1.0]
    assert combined.model_fingerprint == "f"
    assert combined.provenance["layers"]["5"]["method"] == "mean_difference"
    assert combine_layers([combine_layers([vector(5)], name="x")], name="y").layers == (5,)


def test_maps_of_different_rank_can_be_combined() -> None:
    torch.manual_seed(0)
    maps = [
        fit_gaussian_transport(
            torch.randn(20, 4) + 1, torch.randn(20, 4), name="t", layer=i, rank=i
        )
        for i in (1, 2)
    ]
    combined = combine_layers(maps, name="set")
    assert [combined.at(i)["basis"].shape[0] for i in (1, 2)] == [1, 2]


def test_only_like_directions_of_different_layers_are_combined() -> None:
    with pytest.raises(FitError, match="empty"):
        combine_layers([], name="set")
    with pytest.raises(FitError, match="no other has"):
        combine_layers([same := vector(1), same], name="set")
    with pytest.raises(FitError, match="no other has"):
        combine_layers([vector(1), vector(1)], name="set")
    with pytest.raises(FitError, match=r"stored for layers \[1, 2\]"):
        combine_layers([dataclasses.replace(vector(1), layers=(1, 2))], name="set")
    for change in ({"site": Site.MLP_OUT}, {"model_fingerprint": None}, {"requires": ("x",)}):
        other = dataclasses.replace(vector(2), **change)
        with pytest.raises(FitError, match=f"differs from the first in {next(iter(change))}"):
            combine_layers([vector(1), other], name="set")
