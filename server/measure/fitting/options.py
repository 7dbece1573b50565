"""Options of a fit: those of its method, and those of the job around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

from server.engine.engine import Engine
from server.engine.text import Tokenizer
from server.measure.directions import RequestDirections
from server.measure.next_token import parse_behaviour_tokens
from steering.directions import Direction, DirectionKind
from steering.documents import DirectionRef, Operation, Tokens
from steering.errors import IncompatibleOperationError, InvalidFieldError, ShapeMismatchError, shown
from steering.fields import check_keys, member, number
from steering.fit import Method
from steering.fit.selection import MAX_KL
from steering.sites import Site

__all__ = ["JOB_OPTIONS", "FitOptions", "SelectionRule", "stored_vectors"]

JOB_OPTIONS: Final = (
    "behaviour_tokens",
    "max_kl",
    "min_induce",
    "scope",
    "selection",
    "sequential",
    "strength",
)


class SelectionRule(StrEnum):
    """How a layer and a position are chosen; see `steering.fit.selection`."""

    EFFECT = "effect"
    LOG_ODDS = "log_odds"
    SEPARATION = "separation"


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Options of one fit.

    Attributes:
        method: Of the method, all of them, checked.
        vectors: Stored directions, `name@version`, that vectors among them are from, by option.
        rule: How a candidate is chosen.
        behaviour_tokens: Tokens that begin an answer of the positive behaviour (for refusal the
            refusal tokens); None derives them from the training prompts.
        max_kl: Largest mean KL divergence (nats) accepted of a candidate; None for no bound.
        min_induce: Smallest mean log-odds of the behaviour, direction added, accepted of one.
        scope: Tokens on which edits act when they are measured; ablation acts on all.
        strength: With which strength.
        is_sequential: Whether each later layer is fitted with the earlier ones active.
    """

    method: Mapping[str, Any]
    vectors: Mapping[str, str] = field(default_factory=dict)
    rule: SelectionRule = SelectionRule.SEPARATION
    behaviour_tokens: tuple[int, ...] | None = None
    max_kl: float | None = None
    min_induce: float = 0.0
    scope: Tokens = Tokens.ALL
    strength: float = 1.0
    is_sequential: bool = False

    @classmethod
    def parse(
        cls,
        options: Mapping[str, Any],
        method: Method,
        site: Site,
        engine: Engine,
        directions: RequestDirections,
    ) -> Self:
        """Read the `options` of a request.

        Raises:
            InvalidFieldError: One that neither the method nor the job has, or a wrong value.
            Exception: As `stored_vectors`.
        """
        check_keys(
            options,
            {*method.options, *JOB_OPTIONS},
            noun=f"a fit by {method.name!r}",
            prefix="options.",
        )
        own = {name: value for name, value in options.items() if name not in JOB_OPTIONS}
        stored = stored_vectors(own, method, engine.info().spec.width(site), directions)
        own |= {name: d.at(d.layers[0])["vector"] for name, d in stored.items()}
        rule = _rule(options, method, site)
        is_sequential = _sequential(options.get("sequential", False), method)
        max_kl = options.get("max_kl", MAX_KL if rule is SelectionRule.EFFECT else None)
        return cls(
            method=method.resolve(own),
            vectors={name: direction.reference for name, direction in stored.items()},
            rule=rule,
            behaviour_tokens=_tokens(options.get("behaviour_tokens"), engine.tokenizer),
            max_kl=None if max_kl is None else number(max_kl, "options.max_kl"),
            min_induce=number(options.get("min_induce", 0.0), "options.min_induce"),
            scope=_scope(
                options, reads_prompts=rule is not SelectionRule.SEPARATION or is_sequential
            ),
            strength=number(options.get("strength", 1.0), "options.strength"),
            is_sequential=is_sequential,
        )

    def document(self) -> dict[str, Any]:
        """All of them as JSON, defaults included."""
        return {
            **self.method,
            **self.vectors,
            "selection": self.rule.value,
            "behaviour_tokens": self.behaviour_tokens and list(self.behaviour_tokens),
            "max_kl": self.max_kl,
            "min_induce": self.min_induce,
            "scope": self.scope.value,
            "strength": self.strength,
            "sequential": self.is_sequential,
        }


def _rule(options: Mapping[str, Any], method: Method, site: Site) -> SelectionRule:
    has_effect = method.operation is Operation.ADD and site is not Site.HEADS
    possible = {SelectionRule.SEPARATION}
    if method.is_sequential:
        possible.add(SelectionRule.LOG_ODDS)
    elif has_effect and not method.spans_layers:
        possible.add(SelectionRule.EFFECT)
    best = next(rule for rule in SelectionRule if rule in possible)
    rule = member(SelectionRule, options.get("selection", best), "options.selection")
    if rule not in possible:
        raise InvalidFieldError(
            f"options.selection is {rule.value!r}, which {method.name!r} at {site.value!r} cannot "
            f"be chosen by; expected one of {', '.join(sorted(possible))}",
            param="options.selection",
        )
    return rule


def _tokens(value: Any, tokenizer: Tokenizer) -> tuple[int, ...] | None:
    if value is None:
        return None
    return parse_behaviour_tokens(value, tokenizer, "options.behaviour_tokens")


def _scope(options: Mapping[str, Any], *, reads_prompts: bool) -> Tokens:
    scope = member(Tokens, options.get("scope", Tokens.ALL), "options.scope")
    if scope is Tokens.GENERATED and reads_prompts:
        raise InvalidFieldError(
            "options.scope is 'generated', and the fit looks at what edits do to the last token of "
            "prompts; expected another, or selection 'separation' and not sequential",
            param="options.scope",
        )
    return scope


def _sequential(value: Any, method: Method) -> bool:
    if not isinstance(value, bool):
        raise InvalidFieldError(
            f"options.sequential is {shown(value)}; expected true or false",
            param="options.sequential",
        )
    if value and (method.operation is None or method.spans_layers):
        raise InvalidFieldError(
            f"options.sequential is true, and {method.name!r} is not applied layer by layer; leave "
            "it out",
            param="options.sequential",
        )
    return value


def stored_vectors(
    options: Mapping[str, Any], method: Method, width: int, directions: RequestDirections
) -> dict[str, Direction]:
    """The direction of every option that names one, by option.

    Raises:
        InvalidFieldError: An option is not a reference.
        IncompatibleOperationError: A direction is not of one vector.
        ShapeMismatchError: Its vector has not `width` numbers.
        PermissionDeniedError, StoreError: As `RequestDirections.derive`.
    """
    return {
        name: _vector(options[name], f"options.{name}", width, directions)
        for name, option in method.options.items()
        if option.type == "vector" and name in options
    }


def _vector(value: Any, param: str, width: int, directions: RequestDirections) -> Direction:
    direction = directions.derive(DirectionRef.parse(value, param=param), param)
    if direction.kind is not DirectionKind.VECTOR or direction.is_per_layer:
        raise IncompatibleOperationError(
            f"{param} is {direction.reference}, of kind {direction.kind.value!r}; expected a "
            "direction with one vector",
            param=param,
        )
    if direction.width != width:
        raise ShapeMismatchError(
            f"{param} is {direction.reference}, a vector of {direction.width} numbers; the site "
            f"has {width}",
            param=param,
        )
    return direction
