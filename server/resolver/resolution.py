"""A request's steering after its choice was resolved."""

from __future__ import annotations

from dataclasses import dataclass

from steering.plan import SteeringPlan


@dataclass(frozen=True, slots=True)
class ResolvedSteering:
    """Steering looked up, allowed, and compiled.

    Attributes:
        profile: Name of the profile, not of an alias; None where there is none.
        version: The profile's version.
        plan: The plan for the engine; None where nothing is edited and nothing read.
        strength: The request's factor on the profile's strengths.
        is_inline: Whether the request brought interventions of its own.
        is_compared: Whether unsteered answers are wanted as well.
        prompt_tokens: Position where `prompt` ends, one or one per prompt; empty: at its end.
    """

    profile: str | None = None
    version: int | None = None
    plan: SteeringPlan | None = None
    strength: float = 1.0
    is_inline: bool = False
    is_compared: bool = False
    prompt_tokens: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        """The label of metrics: the profile's name, `inline` or `none`."""
        return self.profile or ("inline" if self.is_inline else "none")

    @property
    def header(self) -> str:
        """The value of the header `x-steering-applied`, like `cheerful@2+inline`."""
        parts = [] if self.profile is None else [f"{self.profile}@{self.version}"]
        if self.is_inline:
            parts.append("inline")
        return "+".join(parts) or "none"
