"""Options of a fit: those of its method, and those of the job around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BeforeValidator, ConfigDict, Field

from server.engine.engine import Engine
from server.engine.text import Tokenizer
from server.measure.directions import RequestDirections
from server.measure.next_token import parse_behaviour_tokens
from steering.directions import Direction, DirectionKind
from steering.documents import (
    EVERYWHERE,
    DirectionRef,
    Document,
    Flag,
    Number,
    Operation,
    Scope,
    refused,
    unknown_field,
)
from steering.errors import (
    IncompatibleOperationError,
    InvalidFieldError,
    ShapeMismatchError,
    short_repr,
)
from steering.fit import METHODS, Method
from steering.fit.selection import MAX_KL
from steering.sites import Site

from .scan import Scan, ScanLists


class SelectionRule(StrEnum):
    """How a candidate is chosen; see `steering.fit.selection`."""

    EFFECT = "effect"
    LOG_ODDS = "log_odds"
    LOG_ODDS_FALL = "log_odds_fall"
    SEPARATION = "separation"

    @property
    def reads_answers(self) -> bool:
        """Whether it compares how likely answers are to begin with the behaviour's tokens."""
        return self is not SelectionRule.SEPARATION

    @property
    def bounds_middle(self) -> bool:
        """Whether it takes candidates from the middle of the network alone."""
        return self in (SelectionRule.LOG_ODDS, SelectionRule.LOG_ODDS_FALL)


def _rule_name(value: Any) -> Any:
    if value not in list(SelectionRule):
        raise refused(f"is {short_repr(value)}; expected one of {', '.join(SelectionRule)}")
    return value


def _add_methods_options(schema: dict[str, Any]) -> None:
    """Put the options of every method into the schema, each with the methods that take it."""
    takers: dict[str, dict[str, dict[str, Any]]] = {}
    for method in METHODS.values():
        for name, option in method.options.model_json_schema().get("properties", {}).items():
            option.pop("title")
            takers.setdefault(name, {})[method.name] = option
    for name, by_method in takers.items():
        options = list(by_method.values())
        merged = options[0]
        if any(option != options[0] for option in options):  # methods differ in what it is
            forms = [
                option | {"description": _taken_by([method])}
                for method, option in by_method.items()
            ]
            merged = {"anyOf": forms}
        schema["properties"][name] = merged | {"description": _taken_by(by_method)}
    schema["additionalProperties"] = False


def _taken_by(methods: Iterable[str]) -> str:
    return f"Of {' and '.join(f'`{method}`' for method in methods)}."


class FitJobOptions(Document):
    """Options of a fit: the job's own, and those of the method, which are read when it is known."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_add_methods_options)

    noun: ClassVar[str] = "options"
    prefix: ClassVar[str] = "options."
    null_is_absent: ClassVar[bool] = False

    behaviour_tokens: Any = Field(
        default=None,
        description="Tokens that begin an answer of the behaviour: ids, or texts of one token "
        "each; by default derived from the training prompts. The behaviour is that of positive "
        "examples; for `log_odds_fall` that of negative ones.",
    )
    exclude_sinks: Flag = Field(
        default=True,
        description="Whether edits, when they are measured, leave out attention sinks.",
    )
    max_kl: Number | None = Field(
        default=None,
        description="Largest mean KL divergence (nats) accepted of a candidate; null for no bound.",
    )
    min_induce: Number = Field(
        default=0.0,
        description="Smallest mean log-odds of the behaviour, direction added, accepted of one.",
    )
    scan: ScanLists = Field(
        default_factory=ScanLists,
        description="Options of the method, and numbers of layers, to select among too.",
    )
    scope: Scope = Field(
        default=EVERYWHERE, description="Tokens on which edits act when they are measured."
    )
    selection: Annotated[SelectionRule | None, BeforeValidator(_rule_name)] = Field(
        default=None, description="How a candidate is chosen; by default the best for the method."
    )
    sequential: Flag = Field(
        default=False, description="Whether a later layer is fitted with earlier ones active."
    )
    strength: Number = Field(default=1.0, description="With which edits are measured.")


JOB_OPTIONS: Final = tuple(sorted(FitJobOptions.known()))


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Options of one fit.

    Attributes:
        method: Of the method, all of them, checked.
        scan: What is tried beside layers and positions.
        vectors: Stored directions, `name@version`, that vectors among them are from, by option.
        rule: How a candidate is chosen.
        behaviour_tokens: Tokens that begin an answer of the behaviour (for refusal the refusal
            tokens); None derives them from the training prompts.
        max_kl: Largest mean KL divergence (nats) accepted of a candidate; None for no bound.
        min_induce: Smallest mean log-odds of the behaviour, direction added, accepted of one.
        scope: Tokens on which edits act when they are measured.
        exclude_sinks: Whether attention sinks are left out of them.
        strength: With which strength.
        is_sequential: Whether each later layer is fitted with the earlier ones active.
    """

    method: Mapping[str, Any]
    scan: Scan
    vectors: Mapping[str, str] = field(default_factory=dict)
    rule: SelectionRule = SelectionRule.SEPARATION
    behaviour_tokens: tuple[int, ...] | None = None
    max_kl: float | None = None
    min_induce: float = 0.0
    scope: Scope = EVERYWHERE
    exclude_sinks: bool = True
    strength: float = 1.0
    is_sequential: bool = False

    @classmethod
    def parse(
        cls,
        asked: FitJobOptions,
        method: Method,
        site: Site,
        engine: Engine,
        directions: RequestDirections,
    ) -> Self:
        """Complete the `options` of a request.

        Raises:
            InvalidFieldError: One that neither the method nor the job has, or a wrong value.
            Exception: As `stored_vectors`.
        """
        own = dict(asked.model_extra or {})
        known = method.options.known()
        unknown = next((name for name in own if name not in known), None)
        if unknown is not None:
            noun = f"a fit by {method.name!r}"
            raise unknown_field(unknown, {*known, *JOB_OPTIONS}, noun, "options.").under("options")
        stored = stored_vectors(own, method, engine.info().spec.width(site), directions)
        own |= {name: d.at(d.layers[0])["vector"] for name, d in stored.items()}
        rule = _rule(asked.selection, method, site)
        _check_sequential(asked.sequential, method)
        is_bounded = rule is SelectionRule.EFFECT and "max_kl" not in asked.model_fields_set
        resolved = method.resolve(own)
        return cls(
            method=resolved,
            scan=asked.scan.read(method, resolved),
            vectors={name: direction.reference for name, direction in stored.items()},
            rule=rule,
            behaviour_tokens=_tokens(asked.behaviour_tokens, engine.tokenizer),
            max_kl=MAX_KL if is_bounded else asked.max_kl,
            min_induce=asked.min_induce,
            scope=asked.scope,
            exclude_sinks=asked.exclude_sinks,
            strength=asked.strength,
            is_sequential=asked.sequential,
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
            "scope": self.scope.to_dict(),
            "exclude_sinks": self.exclude_sinks,
            "scan": self.scan.document(),
            "strength": self.strength,
            "sequential": self.is_sequential,
        }


def _rule(asked: SelectionRule | None, method: Method, site: Site) -> SelectionRule:
    is_added = method.operation is Operation.ADD and site is not Site.HEADS
    possible = {SelectionRule.SEPARATION}
    if method.is_sequential or (is_added and not method.spans_layers):
        possible |= {SelectionRule.LOG_ODDS, SelectionRule.LOG_ODDS_FALL}
        possible |= set() if method.is_sequential else {SelectionRule.EFFECT}
    best = next(rule for rule in SelectionRule if rule in possible)
    rule = asked or best
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


def _check_sequential(is_sequential: bool, method: Method) -> None:
    if is_sequential and (method.operation is None or method.spans_layers):
        raise InvalidFieldError(
            f"options.sequential is true, and {method.name!r} is not applied layer by layer; leave "
            "it out",
            param="options.sequential",
        )


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
        for name, kind in method.options.types().items()
        if kind == "vector" and name in options
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
