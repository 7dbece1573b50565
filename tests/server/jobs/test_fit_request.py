"""Requests of fits: everything wrong is found before anything runs, and named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

from server.engine.async_engine import AsyncEngine
from server.engine.errors import EngineError
from server.jobs.kinds.fit import FIT
from server.measure.fitting.options import SelectionRule
from server.measure.fitting.request import FitJob, FitRequest
from server.store.errors import StoreError
from steering.directions import Direction, DirectionKind
from steering.errors import SteeringError
from steering.sites import Site

from .fit_context import MemoryContext, texts

POSITIVE = texts("restricted_direct", 28)
NEGATIVE = texts("ordinary", 28)


def body(**changes: Any) -> dict[str, Any]:
    plain = {"name": "refusal", "data": {"positive": POSITIVE, "negative": NEGATIVE}}
    return plain | changes


def data(**changes: Any) -> dict[str, Any]:
    return {"data": {"positive": POSITIVE, "negative": NEGATIVE} | changes}


def answered(answer: str) -> list[list[dict[str, str]]]:
    """The same questions, each with one answer."""
    return [
        [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
        for text in NEGATIVE
    ]


def parse(engine: AsyncEngine, request: dict[str, Any]) -> FitRequest:
    """As a request that arrives is; two directions are stored."""
    width = engine.info().spec.hidden_size
    stored = {
        "short": Direction(
            "short", DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector": torch.ones(8)}
        ),
        "flat": Direction(
            "flat", DirectionKind.BASIS, Site.RESID_POST, (1,), {"basis": torch.eye(1, width)}
        ),
    }
    return FitRequest.parse(request, engine, MemoryContext(engine, stored=stored).directions)


def test_little_is_required(embedded: AsyncEngine) -> None:
    asked = parse(embedded, body())
    assert asked.method.name == "mean_difference"
    assert asked.site is Site.RESID_POST
    assert asked.layers == (0, 1, 2)  # at less than 80 % of six layers
    assert asked.options.rule is SelectionRule.EFFECT
    assert asked.data.summary.num_train == {"positive": 22, "negative": 22}
    assert asked.data.summary.system_prompt_sha256 is None


@pytest.mark.parametrize(
    ("method", "rule", "layers", "site"),
    [
        ("gaussian_transport", SelectionRule.LOG_ODDS, (2,), Site.RESID_POST),
        ("probe", SelectionRule.SEPARATION, (0, 1, 2, 3, 4, 5), Site.RESID_POST),
        ("iti_heads", SelectionRule.SEPARATION, (0, 1, 2, 3, 4, 5), Site.HEADS),
    ],
)
def test_each_method_has_its_rule_and_its_candidates(
    embedded: AsyncEngine, method: str, rule: SelectionRule, layers: tuple[int, ...], site: Site
) -> None:
    asked = parse(embedded, body(method=method, layers="select"))
    assert (asked.options.rule, asked.layers, asked.site) == (rule, layers, site)


@pytest.mark.parametrize(
    ("layers", "found", "is_selecting"),
    [
        ([3, 1], (1, 3), False),
        ({"from": 0.4, "to": 0.7}, (2, 3), False),
        ({"select": [4, 5]}, (4, 5), True),
        ({"select": {"from": 0.5, "to": 1.0}}, (2, 3, 4, 5), True),
    ],
)
def test_layers_are_listed_ranged_or_candidates(
    embedded: AsyncEngine, layers: Any, found: tuple[int, ...], is_selecting: bool
) -> None:
    asked = parse(embedded, body(layers=layers))
    assert (asked.layers, asked.is_selecting) == (found, is_selecting)


def test_behaviour_tokens_are_ids_or_texts_of_one_token(embedded: AsyncEngine) -> None:
    (token,) = embedded.tokenizer.encode("I", add_special_tokens=False)
    asked = parse(embedded, body(options={"behaviour_tokens": ["I", 7]}))
    assert asked.options.behaviour_tokens == tuple(sorted((7, token)))


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no name": ({"name": None}, "name", "invalid_field"),
    "a name that is no text": ({"name": 3}, "name", "invalid_field"),
    "a name of other letters": ({"name": "Refusal!"}, "name", "invalid_field"),
    "a reserved name": ({"name": "none"}, "name", "name_reserved"),
    "an unknown field": ({"epochs": 3}, "epochs", "invalid_field"),
    "an unknown method": ({"method": "magic"}, "method", "invalid_field"),
    "a method that is no text": ({"method": 3}, "method", "invalid_field"),
    "an unknown site": ({"site": "resid"}, "site", "unknown_site"),
    "a read only site": ({"site": "final"}, "site", "site_unavailable"),
    "a layer beyond the model": ({"layers": [6]}, "layers", "layer_out_of_range"),
    "no layer": ({"layers": []}, "layers", "layer_out_of_range"),
    "stored layers": ({"layers": "stored"}, "layers", "invalid_field"),
    "other words for layers": ({"layers": "best"}, "layers", "invalid_field"),
    "candidates of a spanning method": (
        {"method": "angular_plane", "layers": {"select": [1, 2, 3]}},
        "layers.select",
        "invalid_field",
    ),
    "too few layers for a plane": (
        {"method": "angular_plane", "layers": [2, 3]},
        "layers",
        "invalid_field",
    ),
    "heads elsewhere": ({"method": "iti_heads", "site": "resid_post"}, "site", "invalid_field"),
    "a layer without an embedding": (
        {"site": "embed", "layers": [1]},
        "layers",
        "layer_out_of_range",
    ),
    "no data": ({"data": None}, "data", "invalid_field"),
    "data that is a list": ({"data": [1]}, "data", "invalid_field"),
    "unknown data": (data(labels=[]), "data.labels", "invalid_field"),
    "an empty example": (data(positive=[*POSITIVE, ""]), "data.positive[28]", "invalid_field"),
    "too few examples": (data(negative=NEGATIVE[:5]), "data.negative", "fit_failed"),
    "an empty system prompt": (data(system_prompt=" "), "data.system_prompt", "invalid_field"),
    "an unknown token": (data(token="first"), "data.token", "invalid_field"),
    "a token beyond a prompt": (data(token=-400), "data.positive[0]", "invalid_field"),
    "no answer to average": (data(token="mean"), "data.positive[0]", "invalid_field"),
    "a long example": (
        data(negative=[*NEGATIVE, "old vase " * 2000]),
        "data.negative[28]",
        "request_rejected",
    ),
    "no neutral example": (data(neutral=[]), "data.neutral", "invalid_field"),
    "an odd neutral example": (data(neutral=["a", 3]), "data.neutral[1]", "invalid_field"),
    "sets for a method of pairs": ({"method": "pair_pca"}, "data", "invalid_field"),
    "a seed that is no integer": ({"seed": "one"}, "seed", "invalid_field"),
    "options that are no object": ({"options": 3}, "options", "invalid_field"),
    "an unknown option": ({"options": {"depth": 1}}, "options.depth", "invalid_field"),
    "another method's option": ({"options": {"rank": 2}}, "options.rank", "invalid_field"),
    "an option's range": (
        {"method": "probe", "options": {"l2": 0}},
        "options.l2",
        "invalid_field",
    ),
    "an option of another type": (
        {"method": "gaussian_transport", "options": {"rank": "two"}},
        "options.rank",
        "invalid_field",
    ),
    "an unknown rule": ({"options": {"selection": "luck"}}, "options.selection", "invalid_field"),
    "a rule of other methods": (
        {"method": "probe", "options": {"selection": "effect"}},
        "options.selection",
        "invalid_field",
    ),
    "a scope after what is measured": (
        {"options": {"scope": {"tokens": "generated"}, "selection": "effect"}},
        "options.scope",
        "invalid_field",
    ),
    "a scope that is no object": (
        {"options": {"scope": "last_prompt"}},
        "options.scope",
        "invalid_field",
    ),
    "an unknown scope": (
        {"options": {"scope": {"tokens": "some"}}},
        "options.scope.tokens",
        "invalid_field",
    ),
    "a scope of regions": (
        {"options": {"scope": {"regions": ["answer"]}}},
        "options.scope",
        "invalid_field",
    ),
    "a scope beyond every prompt": (
        {"options": {"scope": {"windows": [[900, 901]]}}},
        "options.scope",
        "invalid_field",
    ),
    "the same prompts on both sides": (
        data(positive=answered("Wonderful!"), negative=answered("Alas!"), token="mean"),
        "options.behaviour_tokens",
        "invalid_field",
    ),
    "a scan of fixed layers": (
        {
            "method": "gaussian_transport",
            "layers": [2],
            "options": {"scan": {"rank": [1, 2]}},
        },
        "options.scan",
        "invalid_field",
    ),
    "a scan of what the method has not": (
        {"options": {"scan": {"rank": [1, 2]}}},
        "options.scan.rank",
        "invalid_field",
    ),
    "a scan of one value": (
        {"method": "gaussian_transport", "options": {"scan": {"rank": 2}}},
        "options.scan.rank",
        "invalid_field",
    ),
    "a scan of a value twice": (
        {"method": "gaussian_transport", "options": {"scan": {"rank": [2, 2]}}},
        "options.scan.rank",
        "invalid_field",
    ),
    "a scan of a value that the option refuses": (
        {"method": "gaussian_transport", "options": {"scan": {"rank": [1, "two"]}}},
        "options.scan.rank",
        "invalid_field",
    ),
    "a scan of more layers than are candidates": (
        {
            "method": "gaussian_transport",
            "layers": {"select": [2, 3]},
            "options": {"scan": {"num_layers": [1, 3]}},
        },
        "options.scan.num_layers",
        "invalid_field",
    ),
    "a scan of layers of a push": (
        {"options": {"scan": {"num_layers": [1, 2]}}},
        "options.scan.num_layers",
        "invalid_field",
    ),
    "a scan of too many candidates": (
        {
            "method": "gaussian_transport",
            "options": {"scan": {"shrinkage": [n / 1000 for n in range(1001)], "rank": [1, 2]}},
        },
        "options.scan",
        "invalid_field",
    ),
    "an infinite strength": (
        {"options": {"strength": float("inf")}},
        "options.strength",
        "non_finite",
    ),
    "a text of two tokens": (
        {"options": {"behaviour_tokens": ["I am sorry"]}},
        "options.behaviour_tokens",
        "invalid_field",
    ),
    "a token that is not there": (
        {"options": {"behaviour_tokens": [99999]}},
        "options.behaviour_tokens",
        "invalid_field",
    ),
    "no token": (
        {"options": {"behaviour_tokens": []}},
        "options.behaviour_tokens",
        "invalid_field",
    ),
    "sequential and one layer": (
        {"layers": [2], "options": {"sequential": True}},
        "options.sequential",
        "invalid_field",
    ),
    "sequential and selecting": (
        {"options": {"sequential": True}},
        "options.sequential",
        "invalid_field",
    ),
    "sequential and only read": (
        {"method": "probe", "layers": [1, 2], "options": {"sequential": True}},
        "options.sequential",
        "invalid_field",
    ),
    "sequential and no boolean": (
        {"layers": [1, 2], "options": {"sequential": 1}},
        "options.sequential",
        "invalid_field",
    ),
    "a vector that is no reference": (
        {"method": "null_space", "options": {"target": [1.0, 2.0]}},
        "options.target",
        "invalid_field",
    ),
    "a vector that is not stored": (
        {"method": "null_space", "options": {"target": "lost"}},
        "options.target",
        "direction_not_found",
    ),
    "a vector of another width": (
        {"method": "null_space", "options": {"target": "short"}},
        "options.target",
        "shape_mismatch",
    ),
    "no vector": (
        {"method": "null_space", "options": {"target": "flat"}},
        "options.target",
        "incompatible_operation",
    ),
    "a rank of more than the examples": (
        {"method": "pca", "options": {"rank": 43}},
        "options.rank",
        "fit_failed",
    ),
    "a rank of more than the transport's examples": (
        {"method": "gaussian_transport", "options": {"rank": 43}},
        "options.rank",
        "fit_failed",
    ),
    "more heads than there are": (
        {"method": "iti_heads", "options": {"top_k": 49}},
        "options.top_k",
        "invalid_field",
    ),
    "too few held out for heads": (
        {"method": "iti_heads", "options": {"validation": 0.01}},
        "options.validation",
        "fit_failed",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_found_and_named(embedded: AsyncEngine, case: str) -> None:
    changes, param, code = WRONG[case]
    asked = {key: value for key, value in body(**changes).items() if value is not None}
    with pytest.raises((SteeringError, EngineError, StoreError)) as caught:
        parse(embedded, asked)
    error = caught.value
    assert isinstance(error, SteeringError | EngineError | StoreError)
    assert error.param == param
    assert error.code == code


def test_what_is_fitted_can_be_asked_for(embedded: AsyncEngine) -> None:
    """Capabilities list every method with options that a request may carry, as its schema does."""
    schema = Draft202012Validator(FitJob.model_json_schema())
    assert not schema.is_valid(body(options={"surplus": 1}))
    methods = FIT.options["methods"]
    assert methods["gaussian_transport"]["options"]["rank"] == {"type": "integer", "default": 2}
    assert {"mean_difference", "probe", "leace", "iti_heads"} <= set(methods)
    for name, method in methods.items():
        if name == "pca" or method["is_paired"]:
            continue
        given = {
            key: option["default"]
            for key, option in method["options"].items()
            if option["default"] is not None
        }
        schema.validate(body(method=name, options=given))
        parse(embedded, body(method=name, options=given))
