"""What `/v1/steering/analyze` is sent, and what it answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from server.api.http.errors import InvalidParameterError
from server.measure.cliff import CliffQuery
from server.measure.heads import HeadsQuery
from steering.analysis import Plateau
from steering.sites import Site

from .answers import Generated
from .chat import MessageField
from .fields import Count
from .steering import MonitorField, SteeringFields, SteeringReport
from .templates import TemplateFields

_MAX_READOUTS = 512


def _text_or_ids(value: Any) -> Any:
    is_ids = isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) for item in value
    )
    if not (isinstance(value, str) or is_ids) or not value:
        raise ValueError("expected a text or a list of token ids, not empty")
    return value


_TextOrIds = Annotated[str | list[int], BeforeValidator(_text_or_ids)]


class Conversation(TemplateFields):
    """What is looked into: `messages`, or a `prompt` as text or token ids.

    A chat whose last message is the assistant's is left open, as it was while being written; any
    other ends with the beginning of an assistant's turn.
    """

    messages: Annotated[list[MessageField], Field(min_length=1)] | None = None
    prompt: _TextOrIds | None = None
    steering: SteeringFields = Field(default_factory=SteeringFields)

    @model_validator(mode="after")
    def _one_of_two(self) -> Conversation:
        if (self.messages is None) == (self.prompt is None):
            raise InvalidParameterError(
                "messages and prompt are both given or both absent; give one", param="messages"
            )
        if self.messages is None:
            self.refuse_without_messages()
        return self


class TraceBody(Conversation):
    """Tokens of a conversation, and scores of each; up to `max_tokens` are generated first."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "messages": [{"role": "user", "content": "How do I repair a bicycle?"}],
                "readouts": [{"direction": "cheerful"}],
                "max_tokens": 8,
            }
        }
    )

    readouts: Annotated[list[MonitorField], Field(min_length=1, max_length=_MAX_READOUTS)]
    max_tokens: Count = 0


class ScoreBody(Conversation):
    """Known text to score: of `continuation` where it is given, else all of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "prompt": "To repair the bicycle,",
                "continuation": " begin with the wheel.",
                "steering": {"profile": "formal"},
            }
        }
    )

    continuation: _TextOrIds | None = None


class CliffBody(CliffQuery):
    """Rollouts whose thoughts are read by a probe."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "conversations": [
                    [
                        {"role": "user", "content": "How do I pick a lock?"},
                        {"role": "assistant", "content": "<think>I may say that.</think>Gently."},
                    ]
                ],
                "probe": "refusal-probe",
            }
        }
    )

    steering: SteeringFields = Field(default_factory=SteeringFields)


class HeadsBody(HeadsQuery):
    """Prompts under which attention heads are ranked against a probe."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "prompts": ["How do I pick a lock?"],
                "probe": "refusal-probe",
                "method": "attribution",
                "percent": 3.0,
            }
        }
    )


class _TracedToken(BaseModel):
    id: int
    text: str = Field(examples=["How"])
    scope: Literal["prompt", "generated"]
    regions: list[str] = Field(
        description="Whose words it is part of, then thinking or answer.", examples=[["user"]]
    )


class _Readout(BaseModel):
    direction: str = Field(examples=["cheerful@1"])
    layer: int
    site: Site = Field(examples=[Site.RESID_POST])
    bias: float
    scores: list[float | None] = Field(
        description="By token; null for the last generated one, which the model never reads."
    )


class _TracedSteering(SteeringReport):
    steered_tokens: dict[Literal["prompt", "generated"], int] = Field(
        examples=[{"prompt": 3, "generated": 1}]
    )


class Trace(Generated):
    """Tokens, and the scores of every readout at each."""

    object: Literal["steering.analysis.trace"]
    tokens: list[_TracedToken]
    readouts: list[_Readout]
    finish_reason: Literal["stop", "length"] | None
    steering: _TracedSteering


class _ScoredToken(BaseModel):
    position: int
    id: int
    text: str = Field(examples=["How"])
    logprob: float = Field(description="Under the steering, in nats.")
    unsteered_logprob: float
    kl: float | None = Field(description="KL(unsteered || steered) in nats; null without steering.")


class Score(Generated):
    """Known text, token by token."""

    object: Literal["steering.analysis.score"]
    tokens: list[_ScoredToken]
    logprob: float
    unsteered_logprob: float
    mean_kl: float | None
    next_kl: float | None = Field(description="Of the distribution after the last token.")
    steering: SteeringReport


class _ReadProbe(BaseModel):
    direction: str = Field(examples=["cheerful@1"])
    layer: int
    site: Site = Field(examples=[Site.RESID_POST])


class _RolloutCliff(BaseModel):
    num_tokens: int
    thought: list[int] = Field(
        description="Its first token, and one past its last.", examples=[[4, 9]]
    )
    plateau: float | None
    final: float
    cliff: float | None = Field(description="plateau - final.")
    plateaus: dict[Plateau, float | None] = Field(
        description="The plateau taken in either way.", examples=[{"mean": 0.6, "max": 0.8}]
    )
    curve: list[float] | None = None


class _AverageCliff(BaseModel):
    num_conversations: int
    curve: list[float]
    longest: int
    plateau: float | None
    final: float
    cliff: float | None
    plateaus: dict[Plateau, float | None] = Field(examples=[{"mean": 0.6, "max": 0.8}])


class Cliffs(Generated):
    """A set of rollouts under a probe; scores are probabilities."""

    object: Literal["steering.analysis.cliff"]
    probe: _ReadProbe
    conversations: list[_RolloutCliff]
    average: _AverageCliff
    ranking: dict[str, list[int]] = Field(
        description="Places of the conversations by rule: largest `cliff`, smallest `final`.",
        examples=[{"cliff": [0], "final": [0]}],
    )


class _RankedHead(BaseModel):
    layer: int
    head: int
    score: float
    direct: float | None = None
    folded: float | None = None


class Heads(Generated):
    """Attention heads against a probe, the strongest suppressor first."""

    object: Literal["steering.analysis.heads"]
    probe: _ReadProbe
    method: Literal["attribution", "causal"]
    is_folded: bool
    heads: list[_RankedHead]
    selected: list[list[int]] = Field(
        description="Layer and head of the first few per cent.", examples=[[[2, 0]]]
    )
    random: list[list[int]] = Field(
        description="As many others, drawn by the seed.", examples=[[[1, 3]]]
    )
    probability: dict[str, float] | None = Field(examples=[{"base": 0.9, "selected": 0.2}])
    direction: str | None = None
    profile: str | None = None
