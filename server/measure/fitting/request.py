"""The request of a fit, checked as a whole before anything runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BeforeValidator, Field, WithJsonSchema

from server.engine.engine import Engine
from server.measure.directions import RequestDirections
from server.measure.examples.example import Example, place_examples
from server.measure.examples.examples import MAX_EXAMPLES, ContrastData, Examples
from server.measure.examples.prompts import ExamplePrompts, ReadToken, TokenChoice, TokenKind
from server.measure.examples.variables import TemplateVariables
from server.store.names import RegistryName
from steering.documents import (
    STORED,
    Document,
    LayerRange,
    Seed,
    SiteName,
    Text,
    Texts,
    parse_layers,
    refused,
    resolve_layers,
    unknown_field,
)
from steering.errors import InvalidFieldError, LayerOutOfRangeError, short_repr
from steering.fit import METHODS, Method, find_method
from steering.fit.selection import MAX_DEPTH, TRANSPORT_DEPTH
from steering.model_spec import ModelSpec
from steering.sites import Site, sole_layer

from .checks import check_candidates, check_samples, check_scope, check_tells_behaviour
from .data import FitData
from .options import FitJobOptions, FitOptions, SelectionRule

SELECT: Final = "select"
_LAYERS: Final = {"type": "array", "items": {"type": "integer"}, "minItems": 1, "uniqueItems": True}
_RANGE: Final = LayerRange.model_json_schema()
_ONE_OR_MORE: Final = [{"type": "integer"}, _LAYERS, _RANGE]
_LAYERS_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        {"const": SELECT},
        *_ONE_OR_MORE,
        {
            "type": "object",
            "properties": {SELECT: {"anyOf": _ONE_OR_MORE}},
            "required": [SELECT],
            "additionalProperties": False,
        },
    ]
}


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise refused(f"is {short_repr(value)}; expected a text")
    return value


def _filled(value: Any) -> Any:
    if not isinstance(value, str) or not value.strip():
        raise refused(f"is {short_repr(value)}; expected a text that is not empty")
    return value


def _neutral(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_EXAMPLES:
        raise refused(f"is {short_repr(value)}; expected a list of 1 to {MAX_EXAMPLES} examples")
    return value


class FitExamples(ContrastData):
    """The examples a direction is fitted on, and what of each is read."""

    null_is_absent: ClassVar[bool] = True

    neutral: Annotated[tuple[Example, ...], BeforeValidator(_neutral)] = Field(
        default_factory=tuple,
        description="Prompts that should not change.",
        json_schema_extra={"minItems": 1, "maxItems": MAX_EXAMPLES},
    )
    system_prompt: Annotated[str, BeforeValidator(_filled)] | None = Field(
        default=None, description="Put before every example while it is read, and not kept."
    )
    chat_template_kwargs: TemplateVariables = Field(
        default_factory=dict, description="Variables of the chat template that they are written by."
    )
    token: ReadToken = Field(
        default_factory=lambda: TokenChoice(TokenKind.LAST),
        description="Which tokens of an example are read.",
    )


class FitJob(Document):
    """What is asked of a fit."""

    noun: ClassVar[str] = "a fit"

    name: RegistryName = Field(description="Of the direction.")
    method: Annotated[Text, WithJsonSchema({"type": "string", "enum": list(METHODS)})] = Field(
        default="mean_difference", description="By which method."
    )
    site: Annotated[SiteName, BeforeValidator(_text)] | None = Field(
        default=None, description="At which site; by default the method's own, or `resid_post`."
    )
    options: FitJobOptions = Field(
        default_factory=FitJobOptions,
        description="Of the method and of the job, as `capabilities` lists them.",
    )
    seed: Seed = Field(default=0, description="Of the split and of resampling.")
    data: FitExamples = Field(description="On what.")
    layers: Annotated[Any, WithJsonSchema(_LAYERS_SCHEMA)] = Field(
        default=SELECT,
        description="Layers to fit, or those to select one from; `select` chooses them too.",
    )
    requires: Texts = Field(
        default=(), description="Permissions that using the direction is to take."
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
        asked = FitJob.from_dict(request)
        spec = engine.info().spec
        method = find_method(asked.method)
        site = _site(asked.site, method, spec)
        options = FitOptions.parse(asked.options, method, site, engine, directions)
        candidates, is_selecting = _asked_layers(asked.layers, method, site, options, spec)
        layers = _layers(candidates, method, site, options, spec, is_selecting=is_selecting)
        fitted = _data(asked.data, method, engine, asked.seed)
        check_samples(method, options, fitted, site, layers, spec)
        if is_selecting:
            check_candidates(options, fitted, layers)
            check_tells_behaviour(options, fitted)
        elif options.scan.lists:
            raise InvalidFieldError(
                'options.scan is given, and nothing is selected; expected layers "select" or '
                '{"select": [...]}, and a method that fits each layer',
                param="options.scan",
            )
        if (is_selecting and options.rule.reads_answers) or options.is_sequential:
            check_scope(options.scope, fitted)
        return cls(
            name=asked.name,
            method=method,
            site=site,
            layers=layers,
            is_selecting=is_selecting,
            bounds_depth=asked.layers == SELECT,
            options=options,
            data=fitted,
            seed=asked.seed,
            requires=asked.requires,
        )


def _site(asked: Site | None, method: Method, spec: ModelSpec) -> Site:
    only = method.only_site
    site = asked or only or Site.RESID_POST
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
        unknown = next((key for key in value if key != SELECT), None)
        if unknown is not None:
            raise unknown_field(unknown, {SELECT}, "layers", "layers.").under("layers")
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
    if rule.bounds_middle:
        return dict(zip(("from", "to"), TRANSPORT_DEPTH, strict=True))
    if rule is SelectionRule.EFFECT and not method.spans_layers:
        passed = 1 if site is Site.RESID_POST else 0
        return list(range(max(int(MAX_DEPTH * spec.num_layers) - passed, 1)))
    return list(range(spec.num_layers))


def _data(data: FitExamples, method: Method, engine: Engine, seed: int) -> FitData:
    system, choice = data.system_prompt, data.token
    if method.spans_layers and choice.kind is TokenKind.POST_INSTRUCTION:
        raise InvalidFieldError(
            f"data.token is 'post_instruction', and {method.name!r} looks at one token of all "
            "layers; expected 'last', 'mean' or an index",
            param="data.token",
        )
    examples = Examples.of(data, seed)
    if method.is_paired and not examples.is_paired:
        raise InvalidFieldError(
            f"data has two sets, and {method.name!r} compares pairs; give data.pairs",
            param="data",
        )
    longest = engine.info().max_model_len - 1  # an answer must fit
    variables = data.chat_template_kwargs
    prompts = ExamplePrompts(engine.tokenizer, choice, system, longest, variables)
    return FitData.of(
        examples,
        prompts,
        neutral=tuple(map(prompts.serve, place_examples(data.neutral, "data.neutral"))),
        token=choice.document,
        system_sha256=None if system is None else hashlib.sha256(system.encode()).hexdigest(),
        seed=seed,
    )
