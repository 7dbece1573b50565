"""The request of a fit, checked as a whole before anything runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from server.engine.engine import Engine
from server.measure.directions import RequestDirections
from server.measure.examples.example import Example
from server.measure.examples.examples import MAX_EXAMPLES, Examples
from server.measure.examples.prompts import ExamplePrompts, TokenChoice, TokenKind
from server.store.names import check_name
from steering.documents import STORED, parse_layers, resolve_layers
from steering.errors import InvalidFieldError, LayerOutOfRangeError, SteeringError, shown
from steering.fields import check_keys, filled_text, mapping, require, seed_number, str_list, text
from steering.fit import Method, SampleCounts, find_method
from steering.fit.selection import MAX_DEPTH, TRANSPORT_DEPTH
from steering.model_spec import ModelSpec
from steering.sites import Site, parse_site, sole_layer

from .data import FitData
from .options import FitOptions, SelectionRule

__all__ = ["SELECT", "FitRequest"]

SELECT: Final = "select"
_FIELDS: Final = frozenset(
    {"name", "method", "site", "layers", "data", "options", "seed", "requires"}
)
_DATA_FIELDS: Final = frozenset(
    {"negative", "neutral", "pairs", "positive", "system_prompt", "token", "validation"}
)


@dataclass(frozen=True, slots=True)
class FitRequest:
    """What to fit, where, how and on what.

    Attributes:
        name: Of the direction.
        method: By which method.
        site: At which site.
        layers: Candidates to select from, or all those to fit.
        is_selecting: Whether one layer of `layers` is to be chosen.
        bounds_depth: Whether the rule's own bounds of depth hold; not for candidates given.
        options: How.
        data: On what.
        seed: Of the split and of resampling.
        requires: Permissions that using the direction takes.
    """

    name: str
    method: Method
    site: Site
    layers: tuple[int, ...]
    is_selecting: bool
    bounds_depth: bool
    options: FitOptions
    data: FitData
    seed: int
    requires: tuple[str, ...]

    @classmethod
    def parse(
        cls, request: Mapping[str, Any], engine: Engine, directions: RequestDirections
    ) -> Self:
        """Read `{name, method, site, layers, data, options, seed}`.

        Raises:
            SteeringError: The first problem; `param` names the field or the example.
            RequestRejectedError: An example that cannot be rendered or is too long.
            NameReservedError: A name the server keeps for itself.
            PermissionDeniedError, StoreError: A stored direction that cannot be used.
        """
        check_keys(request, _FIELDS, noun="a fit")
        spec = engine.info().spec
        name = require(request, "name", noun="a fit")
        check_name(text(name, "name"))
        method = find_method(text(request.get("method", "mean_difference"), "method"))
        site = _site(request.get("site"), method, spec)
        options = FitOptions.parse(
            mapping(request.get("options", {}), "options"), method, site, engine, directions
        )
        seed = seed_number(request.get("seed", 0), "seed")
        data = _given(mapping(require(request, "data", noun="a fit"), "data"))
        asked = request.get("layers", SELECT)
        candidates, is_selecting = _asked_layers(asked, method, site, options, spec)
        layers = _layers(candidates, method, site, options, spec, is_selecting=is_selecting)
        fitted = _data(data, method, engine, seed)
        _check_samples(method, options, fitted, site, layers, spec)
        return cls(
            name=name,
            method=method,
            site=site,
            layers=layers,
            is_selecting=is_selecting,
            bounds_depth=asked == SELECT,
            options=options,
            data=fitted,
            seed=seed,
            requires=str_list(request.get("requires"), "requires"),
        )


def _site(value: Any, method: Method, spec: ModelSpec) -> Site:
    only = method.only_site
    site = parse_site(text(value if value is not None else only or Site.RESID_POST, "site"))
    if only is not None and site is not only:
        raise InvalidFieldError(
            f"site is {site.value!r}; {method.name!r} expects {only.value!r}, its default",
            param="site",
        )
    spec.require_site(site, editable=method.operation is not None)
    return site


def _asked_layers(
    value: Any, method: Method, site: Site, options: FitOptions, spec: ModelSpec
) -> tuple[Any, bool]:
    """Layers as `parse_layers` reads them, and whether one of them is to be selected."""
    if value == STORED:
        raise InvalidFieldError(
            "layers is 'stored', and nothing is stored yet; expected a list, 'select' or "
            '{"select": [...]}',
            param="layers",
        )
    if value == SELECT:
        return _candidates(options.rule, method, site, spec), not method.spans_layers
    if isinstance(value, Mapping) and SELECT in value:
        check_keys(value, {SELECT}, noun="layers", prefix="layers.")
        if method.spans_layers:
            raise InvalidFieldError(
                f"layers.select is given, and {method.name!r} looks at all layers together; give "
                "a list",
                param="layers.select",
            )
        return value[SELECT], True
    return value, False


def _layers(
    value: Any,
    method: Method,
    site: Site,
    options: FitOptions,
    spec: ModelSpec,
    *,
    is_selecting: bool,
) -> tuple[int, ...]:
    layers = resolve_layers(parse_layers(value), (), spec.num_layers)
    if len(layers) < method.min_layers:
        raise InvalidFieldError(
            f"layers is {list(layers)}; {method.name!r} looks at all of them together and expects "
            f"at least {method.min_layers}",
            param="layers",
        )
    only = sole_layer(site, spec.num_layers)
    if only is not None and layers != (only,):
        raise LayerOutOfRangeError(
            f"layers is {list(layers)} at {site.value!r}, which belongs to layer {only} alone",
            param="layers",
        )
    if options.is_sequential and (is_selecting or len(layers) < 2):
        raise InvalidFieldError(
            "options.sequential is true, which fits a later layer with earlier ones active; give "
            "layers as a list of two or more",
            param="options.sequential",
        )
    return layers


def _candidates(
    rule: SelectionRule, method: Method, site: Site, spec: ModelSpec
) -> list[int] | dict[str, float]:
    """Layers worth measuring: those the rule would not refuse for their depth alone."""
    only = sole_layer(site, spec.num_layers)
    if only is not None:
        return [only]
    if rule is SelectionRule.LOG_ODDS:
        return dict(zip(("from", "to"), TRANSPORT_DEPTH, strict=True))
    if rule is SelectionRule.EFFECT and not method.spans_layers:
        passed = 1 if site is Site.RESID_POST else 0
        return list(range(max(int(MAX_DEPTH * spec.num_layers) - passed, 1)))
    return list(range(spec.num_layers))


def _data(data: Mapping[str, Any], method: Method, engine: Engine, seed: int) -> FitData:
    check_keys(data, _DATA_FIELDS, noun="data", prefix="data.")
    system = data.get("system_prompt")
    if system is not None:
        system = filled_text(system, "data.system_prompt")
    choice = TokenChoice.parse(data.get("token"))
    if method.spans_layers and choice.kind is TokenKind.POST_INSTRUCTION:
        raise InvalidFieldError(
            f"data.token is 'post_instruction', and {method.name!r} looks at one token of all "
            "layers; expected 'last', 'mean' or an index",
            param="data.token",
        )
    examples = Examples.parse(data, seed)
    if method.is_paired and not examples.is_paired:
        raise InvalidFieldError(
            f"data has two sets, and {method.name!r} compares pairs; give data.pairs",
            param="data",
        )
    longest = engine.info().max_model_len - 1  # an answer must fit
    prompts = ExamplePrompts(engine.tokenizer, choice, system, longest)
    return FitData.of(
        examples,
        prompts,
        neutral=_neutral(data.get("neutral"), prompts),
        token=choice.document,
        system_sha256=None if system is None else hashlib.sha256(system.encode()).hexdigest(),
        seed=seed,
    )


def _check_samples(
    method: Method,
    options: FitOptions,
    data: FitData,
    site: Site,
    layers: Sequence[int],
    spec: ModelSpec,
) -> None:
    """Check that there is enough to fit on, for these options."""
    samples = SampleCounts(
        num_positive=len(data.train.positive.read),
        num_negative=len(data.train.negative.read),
        width=spec.width(site),
        num_layers=len(layers),
        num_heads=spec.num_heads,
    )
    data.check_size(samples.num_layers, samples.width)
    method.check_counts(samples.num_positive, samples.num_negative)
    try:
        method.check_options(options.method, samples)
    except SteeringError as error:
        raise error.under("options") from None


def _neutral(value: Any, prompts: ExamplePrompts) -> tuple[tuple[int, ...], ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_EXAMPLES:
        raise InvalidFieldError(
            f"data.neutral is {shown(value)}; expected a list of 1 to {MAX_EXAMPLES} examples",
            param="data.neutral",
        )
    return tuple(
        prompts.serve(Example.parse(item, f"data.neutral[{index}]"))
        for index, item in enumerate(value)
    )


def _given(document: Mapping[str, Any]) -> dict[str, Any]:
    """The members that are not null: null is the same as nothing."""
    return {key: value for key, value in document.items() if value is not None}
