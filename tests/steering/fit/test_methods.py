from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
import torch

from steering.errors import FitError, InvalidFieldError, NonFiniteError, SteeringError
from steering.fit import METHODS, Method, SampleCounts, find_method
from steering.operations import OPERATION_KINDS
from steering.sites import Site
from tests.source_tree import ROOT

from .fitters.apply_direction import apply_direction

NUM_HEADS, WIDTH = 2, 8
LAYERS = (1, 2, 4)
APPLIED: dict[str, dict[str, Any]] = {"angular_plane": {"angle": 10.0}}


def sets(seed: int, layers: tuple[int, ...] = LAYERS, num_samples: int = 24) -> Any:
    generator = np.random.default_rng(seed)
    shape = (num_samples, WIDTH)
    positive, negative = (
        {layer: torch.from_numpy(generator.standard_normal(shape)) for layer in layers}
        for _ in range(2)
    )
    for layer in layers:
        positive[layer][:, layer] += 3.0
    return positive, negative


def fit(method: Method, positive: Any, negative: Any, **options: Any) -> Any:
    site = Site.HEADS if method.name == "iti_heads" else Site.RESID_POST
    return method.fit(
        positive,
        negative,
        name="d",
        site=site,
        model_fingerprint="f",
        num_heads=NUM_HEADS,
        options=options,
    )


@pytest.mark.parametrize(
    ("name", "options", "counts", "param"),
    [
        ("pca", {"rank": 18}, (10, 10), None),
        ("pca", {"rank": 19}, (10, 10), "rank"),
        ("gaussian_transport", {"rank": 33}, (100, 100), "rank"),
        ("iti_heads", {"validation": 0.2}, (20, 7), "validation"),
        ("iti_heads", {"top_k": 6}, (20, 20), None),
        ("iti_heads", {"top_k": 7}, (20, 20), "top_k"),
        ("probe", {}, (2, 2), None),
    ],
)
def test_what_options_ask_of_the_number_of_samples_is_known_before_they_are_read(
    name: str, options: dict[str, Any], counts: tuple[int, int], param: str | None
) -> None:
    method = find_method(name)
    samples = SampleCounts(*counts, width=32, num_layers=3, num_heads=NUM_HEADS)
    if param is None:
        method.check_options(method.resolve(options), samples)
    else:
        with pytest.raises((FitError, InvalidFieldError)) as caught:
            method.check_options(method.resolve(options), samples)
        assert caught.value.param == param


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_each_method_makes_what_it_says_for_several_layers_at_once(method: Method) -> None:
    direction = fit(method, *sets(0))
    assert direction.kind is method.kind
    if method.name == "iti_heads":
        assert set(direction.layers) <= set(LAYERS)
    else:
        assert direction.layers == LAYERS
    assert direction.is_per_layer is (method.name != "angular_plane")
    assert direction.model_fingerprint == "f"
    names = {record["method"] for record in direction.provenance.get("layers", {}).values()}
    assert (names or {direction.provenance["method"]}) == {method.name}
    json.dumps(dict(direction.provenance), allow_nan=False)
    assert fit(method, *sets(0)).digest == direction.digest
    if method.operation is not None:
        assert method.kind in OPERATION_KINDS[method.operation]
        rows = sets(1)[1][direction.layers[0]].numpy()
        moved = apply_direction(
            direction, rows, method.operation.value, **APPLIED.get(method.name, {})
        )
        assert np.abs(moved - rows).max() > 1e-3


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_provenance_records_counts_data_and_every_option(method: Method) -> None:
    layers = LAYERS if method.spans_layers else LAYERS[:1]
    provenance = fit(method, *sets(0, layers)).provenance
    assert (provenance["num_positive"], provenance["num_negative"]) == (24, 24)
    assert len(provenance["data_sha256"]) == 64
    assert provenance["data_sha256"] != fit(method, *sets(1, layers)).provenance["data_sha256"]
    recorded = {name for name, kind in method.options.types().items() if kind != "vector"}
    assert recorded - {"max_iterations"} <= set(provenance)


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_too_few_samples_are_refused_with_the_number_needed(method: Method) -> None:
    few = sets(0, num_samples=method.min_samples - 1)
    with pytest.raises(FitError, match=f"expects at least {method.min_samples} of each") as caught:
        fit(method, *few)
    assert caught.value.param == "data"
    fit(method, *sets(0, num_samples=method.min_samples))


def test_pairs_must_match_and_layers_too() -> None:
    positive, negative = sets(0)
    fewer = {layer: rows[1:] for layer, rows in negative.items()}
    with pytest.raises(FitError, match="expects pairs"):
        fit(METHODS["pair_pca"], positive, fewer)
    fit(METHODS["mean_difference"], positive, fewer)
    with pytest.raises(FitError, match="expected the same ones"):
        fit(METHODS["mean_difference"], positive, {1: negative[1]})
    with pytest.raises(FitError, match="expected the same ones"):
        fit(METHODS["mean_difference"], {}, {})
    with pytest.raises(InvalidFieldError, match="has no num_heads"):
        METHODS["iti_heads"].fit(positive, negative, name="d", site=Site.HEADS)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("leace", {"rank": 2}, "unknown field options.rank of method 'leace'"),
        ("pca", {"rank": 1.5}, "options.rank is 1.5; expected type integer"),
        ("pca", {"rank": True}, "expected type integer"),
        ("pca", {"rank": None}, "expected type integer"),
        ("probe", {"balance": 1}, "options.balance is 1; expected type boolean"),
        ("probe", {"l2": "1"}, "options.l2 is '1'; expected a number"),
        ("linear_act", {"variant": "cubic"}, "expected 'linear' or 'gaussian' or 'mean'"),
        ("linear_act", {"variant": 3}, "expected 'linear' or 'gaussian' or 'mean'"),
        ("null_space", {"target": "x"}, "expected type vector"),
        ("probe", {"l2": 0}, "options.l2 is 0; expected a number above 0"),
        ("probe", {"max_iterations": 0}, "options.max_iterations is 0; expected a number above 0"),
        ("iti_heads", {"validation": 1}, "options.validation is 1; expected a number between 0"),
        ("null_space", {"null_ratio": 0}, "options.null_ratio is 0; expected a number between 0"),
        ("null_space", {"ridge": -1}, "options.ridge is -1; expected a number above 0"),
        ("linear_act", {"min_std": -1}, "options.min_std is -1; expected a number of at least 0"),
        ("gaussian_transport", {"shrinkage": 7}, "is 7; expected a number from 0 to 1"),
        ("gaussian_transport", {"max_stretch": 0.5}, "is 0.5; expected a number of at least 1"),
    ],
)
def test_options_are_checked_by_name_type_and_range(
    method: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidFieldError, match=message) as caught:
        find_method(method).resolve(options)
    assert caught.value.param == f"options.{next(iter(options))}"


def test_options_are_the_arguments_of_the_fitter_with_their_defaults() -> None:
    resolved = find_method("gaussian_transport").resolve({"rank": 1, "shrinkage": 0})
    assert resolved == {
        "rank": 1,
        "shrinkage": 0.0,
        "max_stretch": 2.0,
        "complement_shift": 1.0,
    }
    assert isinstance(resolved["shrinkage"], float)
    assert find_method("iti_heads").resolve({"top_k": None})["top_k"] is None
    variant = find_method("linear_act").options.model_json_schema()["properties"]["variant"]
    assert variant["enum"] == ["linear", "gaussian", "mean"]
    target = torch.ones(WIDTH)
    assert find_method("null_space").resolve({"target": target})["target"] is target
    with pytest.raises(NonFiniteError):
        find_method("probe").resolve({"l2": float("nan")})
    for method in METHODS.values():
        assert "layer" not in method.options.known()
        assert method.summary
        assert not method.summary.endswith(":")


def test_an_unknown_method_is_told_those_that_are() -> None:
    with pytest.raises(SteeringError, match="'magic'; expected one of mean_difference, ") as caught:
        find_method("magic")
    assert caught.value.param == "method"


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_the_guide_has_a_row_and_a_section_for_it(method: Method) -> None:
    text = (ROOT / "docs" / "fitting.md").read_text()
    [row] = [line for line in text.splitlines() if line.startswith(f"| `{method.name}` |")]
    kind, operation, fewest, options = (cell.strip() for cell in row.split("|")[2:6])
    assert kind.startswith(method.kind.value)
    assert operation.startswith(f"`{method.operation.value}`" if method.operation else "read")
    assert int(fewest.split()[0]) == method.min_samples
    assert set(re.findall(r"`(\w+)` ", options)) >= method.options.known()
    assert f"\n### {method.name}\n" in text
