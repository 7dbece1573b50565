"""What chat and text completions have in common."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from server.api.http.errors import InvalidParameterError, UnsupportedParameterError

from .fields import UNSUPPORTED, Count, Wire
from .steering import SteeringFields

_MAX_STOPS: Final = 16
_MAX_STOP_CHARS: Final = 1000


def _stops(value: Any) -> Any:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise ValueError("expected a string or a list of strings")
    if len(stops) > _MAX_STOPS:
        raise ValueError(f"has {len(stops)} strings; expected at most {_MAX_STOPS}")
    if not all(0 < len(stop) <= _MAX_STOP_CHARS for stop in stops):
        raise ValueError(f"expected strings of 1 to {_MAX_STOP_CHARS} characters")
    return stops


def only(*accepted: Any) -> BeforeValidator:
    """A field of the OpenAI API that may only have values that ask for nothing."""

    def check(value: Any) -> Any:
        for candidate in accepted:
            if value == candidate and type(value) is type(candidate):
                return value
        raise PydanticCustomError(UNSUPPORTED, "this server does not support it; leave it out")

    return BeforeValidator(check)


Refused = Annotated[None, only()]
"""A known parameter that is not offered; null counts as absent."""


def _schema_bounds(**bounds: float) -> Any:
    """Bounds that the schema tells and `SamplingParams` checks, for whoever else makes one."""
    return Field(json_schema_extra=dict(bounds))


def _default(value: str) -> str:
    return f"By default the model's own, as capabilities tells it, or {value}."


class StreamOptions(Wire):
    """What a stream carries beside its text."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: Literal[False] = False


class GenerationFields(Wire):
    """Parameters of one generation request, and those that are known but ignored or refused."""

    model: Annotated[str, Field(max_length=512)]
    max_tokens: Count | None = None
    temperature: Annotated[float, _schema_bounds(minimum=0, maximum=2)] | None = Field(
        default=None, description=_default("1")
    )
    top_p: Annotated[float, _schema_bounds(exclusiveMinimum=0, maximum=1)] | None = Field(
        default=None, description=_default("1")
    )
    top_k: Annotated[int, _schema_bounds(minimum=-1)] | None = Field(
        default=None, description=f"-1 and 0: no limit. {_default('0')}"
    )
    min_p: Annotated[float, _schema_bounds(minimum=0, maximum=1)] | None = Field(
        default=None, description=_default("0")
    )
    presence_penalty: Annotated[float, _schema_bounds(minimum=-2, maximum=2)] = 0.0
    frequency_penalty: Annotated[float, _schema_bounds(minimum=-2, maximum=2)] = 0.0
    repetition_penalty: Annotated[float, _schema_bounds(exclusiveMinimum=0, maximum=2)] | None = (
        Field(default=None, description=_default("1"))
    )
    logit_bias: Annotated[dict[str, float], Field(max_length=1024)] = Field(
        default_factory=dict, description="-100 to 100, by token id."
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[list[str], BeforeValidator(_stops, json_schema_input_type=str | list[str])] = (
        Field(default_factory=list)
    )
    stop_token_ids: Annotated[list[Count], Field(max_length=256)] = Field(default_factory=list)
    ignore_eos: bool = False
    min_tokens: Count = 0
    n: Annotated[int, Field(ge=1)] = 1
    prompt_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    return_token_ids: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    steering: SteeringFields | None = None
    vllm_xargs: dict[str, str] | None = None

    # Accepted and without effect here
    user: Annotated[str, Field(max_length=512)] | None = None
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] = (
        Field(default_factory=dict)
    )
    store: bool = False
    service_tier: Annotated[str, Field(max_length=64)] | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=512)] | None = None

    # Known, and refused unless they ask for nothing
    best_of: Annotated[int, only(1)] = 1
    bad_words: Annotated[list[str], only([])] = Field(default_factory=list)
    suffix: Refused = None
    tools: Annotated[list[Any], only([])] = Field(default_factory=list)
    tool_choice: Annotated[str, only("none")] = "none"
    functions: Annotated[list[Any], only([])] = Field(default_factory=list)
    function_call: Annotated[str, only("none")] = "none"
    response_format: Annotated[dict[str, Any], only({"type": "text"})] = Field(
        default_factory=lambda: {"type": "text"}
    )
    guided_json: Refused = None
    structured_outputs: Refused = None
    lora_path: Refused = None

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, value: dict[str, float]) -> dict[str, float]:
        for key in value:
            if not (key.isascii() and key.isdecimal() and len(key) <= 10):
                raise ValueError("expected token ids as keys")
        return value

    @model_validator(mode="after")
    def _stream_only(self) -> GenerationFields:
        if self.stream_options is not None and not self.stream:
            raise InvalidParameterError(
                "stream_options is given without stream; set stream to true", param="stream_options"
            )
        if self.prompt_logprobs is not None and self.stream:
            raise InvalidParameterError(
                "prompt_logprobs is given with stream; set stream to false", param="prompt_logprobs"
            )
        if self.steering is not None and self.steering.compare and self.stream:
            raise UnsupportedParameterError(
                "steering.compare is given with stream; set stream to false",
                param="steering.compare",
            )
        return self
