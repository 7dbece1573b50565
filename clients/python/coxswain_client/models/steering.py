"""How an answer is to be steered, and what was done."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from pydantic import Field

from .record import Record


class Gate(TypedDict, total=False):
    """When an intervention acts; `per`, `direction` and `threshold` are required.

    `token` is for gates per request, `steepness` for gates per token.
    """

    per: Literal["request", "token"]
    direction: str
    threshold: float
    opens: Literal["above", "below"]
    measure: Literal["projection", "cosine", "condition", "logit", "probability"]
    layer: int
    site: str
    token: Literal["last", "mean"]
    steepness: float


class Intervention(TypedDict, total=False):
    """One use of a direction, as in a profile; `operation` and `direction` are required.

    Which of the last eight fields an operation takes is told in the server's documentation.
    """

    operation: str
    direction: str
    layers: list[int] | dict[str, float] | Literal["stored"]
    site: str
    strength: float
    unit: Literal["raw", "resid"]
    scope: dict[str, Any]
    schedule: dict[str, Any]
    gate: Gate
    restore_norm: bool
    distribute: bool
    value: float
    minimum: float
    maximum: float
    reference: float | Literal["stored"]
    angle: float
    mean_strength: float
    shape_strength: float


class Monitor(TypedDict, total=False):
    """A direction to read out; `direction` is required."""

    direction: str
    layer: int
    site: str


class SteeringOptions(TypedDict, total=False):
    """The `steering` object of a request.

    `strength` multiplies the profile's strengths. `compose` says whether inline interventions
    replace the profile's or follow them. `compare` also returns the unsteered choices.
    `prompt_tokens` moves the boundary between prompt and generated for scored text.
    """

    profile: str
    strength: float
    interventions: list[Intervention]
    monitors: list[Monitor]
    compose: Literal["replace", "add"]
    compare: bool
    prompt_tokens: int


class SteeredTokens(Record):
    """How many tokens an intervention acted on."""

    prompt: int
    generated: int


class AppliedSteering(Record):
    """What was done to an answer.

    Attributes:
        profile: Name of the profile that was used, or None.
        version: Version of that profile.
        fingerprint: Fingerprint of the compiled steering; None where there was none.
        applied: One entry per intervention, in order; one with a gate tells its state in each
            choice, as `gate.states`.
        dose: Length of all pushes over all layers, in mean residual norms; None without any.
        warnings: What is likely not meant, such as pushes that are too long together.
        steered_tokens: Number of tokens acted on.
        monitors: Readings of every monitor, by direction.
        baseline: The unsteered choices, where `compare` was set.
    """

    profile: str | None = None
    version: int | None = None
    fingerprint: str | None = None
    applied: list[dict[str, Any]] = Field(default_factory=list)
    dose: float | None = None
    warnings: list[str] = Field(default_factory=list)
    steered_tokens: SteeredTokens = SteeredTokens(prompt=0, generated=0)
    monitors: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    baseline: dict[str, Any] | None = None
