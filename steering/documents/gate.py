"""When an intervention acts: a direction read somewhere, compared with a threshold."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from steering.errors import InvalidFieldError, SteeringError

from .document import Document, Variants, members_of_variants, read, tagged
from .fields import Integer, Number, SiteName, Within
from .reference import DirectionName


class Per(StrEnum):
    """What a gate is decided for.

    `request`: once, on the prompt, for the whole request. `token`: for each token by itself.
    """

    REQUEST = "request"
    TOKEN = "token"


class Measure(StrEnum):
    """How an activation h is scored; u is the unit direction, w and b a probe's tensors.

        projection   h . u
        cosine       h . u / |h|
        condition    cos(h, tanh((h . u) u)), the similarity of conditional activation steering
        logit        h . w + b
        probability  1 / (1 + exp(-(h . w + b)))

    A cosine with a zero vector is 0.

    Source: Lee et al. 2024, arXiv:2409.05907 (`condition`).
    """

    PROJECTION = "projection"
    COSINE = "cosine"
    CONDITION = "condition"
    LOGIT = "logit"
    PROBABILITY = "probability"


class Opens(StrEnum):
    """On which side of the threshold a gate is open; on the threshold itself it is closed."""

    ABOVE = "above"
    BELOW = "below"


class GateToken(StrEnum):
    """What of the prompt a request's gate reads: its last token, or the mean of all of them."""

    LAST = "last"
    MEAN = "mean"


# Scores outside these are never reached, so that such a gate would always or never open.
_RANGES: Final = {
    Measure.COSINE: (-1.0, 1.0),
    Measure.CONDITION: (-1.0, 1.0),
    Measure.PROBABILITY: (0.0, 1.0),
}


class Gate(Document):
    """A condition on the activation; an intervention acts where it is open."""

    model_config = tagged("per")

    noun: ClassVar[str] = "a gate"

    per: Per = Field(description="What the gate is decided for.")
    direction: DirectionName = Field(
        description="What is read: a vector, a probe, or a plane, of which the first axis is read."
    )
    measure: Measure = Field(
        default=Measure.PROJECTION,
        description="How the activation h is scored: projection h.u, cosine h.u / |h|, condition "
        "cos(h, tanh((h.u) u)), and of a probe logit h.w + b or probability.",
    )
    opens: Opens = Field(
        default=Opens.ABOVE, description="On which side of the threshold it is open."
    )
    threshold: Number = Field(
        description="Compared with the score, in units of the measure; within [-1, 1] for cosine "
        "and condition, [0, 1] for probability."
    )
    layer: Integer | None = Field(
        default=None,
        description="Layer (0-based) where it reads; by default the direction's first stored "
        "layer per request, and the edited layer per token.",
    )
    site: SiteName | None = Field(
        default=None, description="Site where it reads; by default the direction's own."
    )

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read the `gate` of an intervention.

        Raises:
            SteeringError: With `param` naming the member.
        """
        found = read(_ANY, document)
        assert isinstance(found, cls), "a gate per request read as one per token"
        return found

    @classmethod
    def known(cls) -> frozenset[str]:
        """Members of gates of either kind."""
        return members_of_variants(Gate)

    @classmethod
    def misplaced(cls, name: str) -> SteeringError:
        """The refusal of a member that only the other kind has."""
        own, other = cls.model_fields["per"].default, {"token": "request"}.get(name, "token")
        return InvalidFieldError(
            f"{name} is given for a gate per {own.value}; only gates per {other} have it; "
            "remove it",
            param=name,
        )

    @model_validator(mode="after")
    def _changes(self) -> Self:
        low, high = _RANGES.get(self.measure, (self.threshold, self.threshold))
        if not low <= self.threshold <= high:
            raise InvalidFieldError(
                f"threshold is {self.threshold:g}; {self.measure.value!r} lies in "
                f"[{low:g}, {high:g}], so the gate would never change",
                param="threshold",
            )
        return self

    @property
    def reads_whole_prompt(self) -> bool:
        """Whether every token of the prompt decides."""
        return False


class RequestGate(Gate):
    """A gate that is decided once, on the prompt, for the whole request."""

    per: Literal[Per.REQUEST] = Field(
        default=Per.REQUEST, description="What the gate is decided for."
    )
    token: GateToken | None = Field(
        default=None, description="Of the prompt, what it reads: by default its last token."
    )

    @property
    def reads_whole_prompt(self) -> bool:
        """Whether every token of the prompt decides."""
        return self.token is GateToken.MEAN


class TokenGate(Gate):
    """A gate that is decided for each token by itself."""

    per: Literal[Per.TOKEN] = Field(default=Per.TOKEN, description="What the gate is decided for.")
    steepness: (
        Annotated[
            Number,
            Field(gt=0),
            Within("a positive number, or leave it out for a hard threshold"),
        ]
        | None
    ) = Field(
        default=None,
        description="k > 0 makes the gate 1 / (1 + exp(-k e)) instead of 0 or 1, e being how far "
        "the score is on the open side. In 1 / units of the score.",
    )

    @model_validator(mode="after")
    def _reads_one_token(self) -> Self:
        if self.measure is Measure.CONDITION:
            raise InvalidFieldError(
                "measure is 'condition' for a gate per token; it is one for requests; use "
                "'cosine', or 'request'",
                param="measure",
            )
        return self


AnyGate = Annotated[Gate, Variants("per", Per)]
"""A gate of either kind."""

_ANY: Final[TypeAdapter[Gate]] = TypeAdapter(AnyGate)
