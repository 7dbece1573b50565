"""What a fit asks of its examples and its options together, checked before it is accepted."""

from __future__ import annotations

from collections.abc import Sequence

from steering.documents import PositionContext, Scope
from steering.errors import InvalidFieldError, SteeringError
from steering.fit import Method, SampleCounts
from steering.model_spec import ModelSpec
from steering.sites import Site

from .data import FitData
from .options import FitOptions
from .scan import MAX_CANDIDATES


def check_samples(
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
    for variant in options.scan.variants:
        try:
            method.check_options(variant.options, samples)
        except SteeringError as error:
            raise error.under("options") from None


def check_candidates(options: FitOptions, data: FitData, layers: Sequence[int]) -> None:
    """Check that what is to be selected from is not too much, and that each has its layers."""
    count = len(layers) * len(data.positions) * len(options.scan.variants)
    if count > MAX_CANDIDATES:
        raise InvalidFieldError(
            f"options.scan makes {count} candidates of {len(layers)} layers; expected at most "
            f"{MAX_CANDIDATES}: shorter lists, or fewer layers",
            param="options.scan",
        )
    most = max(variant.num_layers for variant in options.scan.variants)
    if most > len(layers):
        raise InvalidFieldError(
            f"options.scan.num_layers contains {most}, and there are {len(layers)} candidate "
            f"layers; expected at most {len(layers)}",
            param="options.scan.num_layers",
        )


def check_tells_behaviour(options: FitOptions, data: FitData) -> None:
    """Check that the first token of an answer can tell the two sides apart."""
    if not options.rule.reads_answers or options.behaviour_tokens is not None:
        return
    positive, negative = set(data.train.positive.served), set(data.train.negative.served)
    if positive == negative:
        raise InvalidFieldError(
            "data has the same prompts on both sides, which differ in their answers alone, so "
            "that the first token of a new answer cannot tell the behaviour; give "
            "options.behaviour_tokens, or options.selection 'separation'",
            param="options.behaviour_tokens",
        )


def check_scope(scope: Scope, data: FitData) -> None:
    """Check that edits reach the last token of every prompt, where answers begin."""
    if scope.uses_regions:
        raise InvalidFieldError(
            "options.scope names regions, and what is measured are prompts without an answer; "
            'expected tokens, such as {"tokens": "last_prompt"}',
            param="options.scope",
        )
    for side in (data.validation.positive, data.validation.negative):
        for prompt in side.served:
            length = len(prompt)
            if not scope.mask(0, length, PositionContext(length)).any():
                raise InvalidFieldError(
                    f"options.scope is {scope.to_dict()}, which names no token of a prompt of "
                    f"{length}, and the fit looks at what edits do to how answers begin; expected "
                    "one that does, or selection 'separation' and not sequential",
                    param="options.scope",
                )
