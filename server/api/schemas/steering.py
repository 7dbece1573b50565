"""The `steering` object of a generation request, and that of its answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from steering.documents import AnyIntervention, Monitor, Operation, Scope, StrengthUnit
from steering.sites import Site

from .fields import Count, SchemaOf, Wire


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


_Boundaries = Annotated[
    list[Count],
    Field(max_length=256),
    BeforeValidator(_one_or_many, json_schema_input_type=int | list[int]),
]


def _object(value: Any) -> Any:
    if not isinstance(value, dict):
        raise PydanticCustomError("dict_type", "Input should be a valid dictionary")
    return value


InterventionField = Annotated[AnyIntervention, BeforeValidator(_object)]
MonitorField = Annotated[Monitor, BeforeValidator(_object)]


class SteeringFields(Wire):
    """How an answer is to be steered.

    Interventions and monitors are the documents that profiles hold.
    """

    profile: Annotated[str, Field(max_length=160)] | None = None
    strength: float | None = Field(
        default=None,
        description="Multiplies the strengths of the profile, from 0 to its `max_strength`.",
    )
    ignore_max_strength: bool = Field(
        default=False,
        description="Takes any `strength`, also one at which the profile was never tried.",
    )
    interventions: list[InterventionField] = Field(default_factory=list, max_length=64)
    monitors: list[MonitorField] = Field(default_factory=list, max_length=64)
    compose: Literal["replace", "add"] = Field(
        default="replace",
        description="Whether it stands instead of the default profile, or acts after it.",
    )
    compare: bool = Field(default=False, description="Answer without steering as well.")
    prompt_tokens: _Boundaries = Field(
        default_factory=list,
        description="Where the prompt ends for scopes: one number, or one for each prompt.",
    )


class _SteeredTokens(BaseModel):
    prompt: int
    generated: int


class _GateState(BaseModel):
    """How a gate was decided for one choice."""

    index: int
    open: bool
    score: float | None = Field(default=None, description="Of a gate per request.")
    open_tokens: _SteeredTokens | None = Field(default=None, description="Of a gate per token.")


class _AppliedGate(BaseModel):
    per: Literal["request", "token"]
    direction: str
    measure: str
    opens: Literal["above", "below"]
    threshold: float
    site: Site
    token: Literal["last", "mean"] | None = None
    steepness: float | None = None
    layers: list[int]
    states: list[_GateState] = []


class AppliedIntervention(BaseModel):
    """What one intervention did, or would do."""

    path: str = Field(description="Where it was asked for.", examples=["steering.interventions[0]"])
    operation: Operation
    direction: str = Field(examples=["cheerful@1"])
    layers: list[int] = Field(examples=[[2]])
    site: Site = Field(examples=[Site.RESID_POST])
    strength: float
    unit: StrengthUnit
    scope: Annotated[dict[str, Any], SchemaOf(Scope)] = Field(examples=[{"tokens": "all"}])
    rank: int
    gate: _AppliedGate | None = None


class SteeringReport(BaseModel):
    """Which steering an analysis happened under."""

    profile: str | None = Field(examples=["cheerful"])
    version: int | None
    fingerprint: str | None = Field(
        description="Of the compiled steering; null without any.",
        examples=["732e4f7ba0ad2eddbcf235b1ea3513e9"],
    )
    applied: list[AppliedIntervention]
    dose: float | None = Field(
        description="Length of all pushes over all layers, in residual norms; null without any.",
        examples=[0.4],
    )
    warnings: list[str] = Field(description="What is likely not meant.", examples=[[]])


class _Reading(BaseModel):
    """What a monitor read in one choice."""

    index: int
    layer: int
    site: Site
    positions: list[int]
    scores: list[float | None]


class AppliedSteering(SteeringReport):
    """What was done to an answer."""

    steered_tokens: _SteeredTokens
    monitors: dict[str, list[_Reading]] = Field(description="By direction.", examples=[{}])
