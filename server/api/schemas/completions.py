"""`POST /v1/completions`, as clients send it and as it is answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from server.api.http.errors import InvalidParameterError

from .answers import Generated
from .chat import PromptLogprobs, Usage
from .sampling import GenerationFields, Refused, only
from .steering import AppliedSteering

_Prompt = str | tuple[int, ...]


def _prompts(value: Any) -> list[_Prompt]:
    """A text, a list of texts, a list of token ids or a list of such lists."""
    if isinstance(value, str):
        return [_prompt(value)]
    if not isinstance(value, list) or not value:
        raise ValueError("expected a text, token ids, or a list of either that is not empty")
    if all(_is_id(item) for item in value):
        return [tuple(value)]
    if all(isinstance(item, str) for item in value) or all(
        isinstance(item, list) for item in value
    ):
        return [_prompt(item) for item in value]
    raise ValueError("expected texts only, or token ids (integers from 0) only")


def _prompt(value: str | list[Any]) -> _Prompt:
    if not value:
        raise ValueError("a prompt is empty; expected at least one token")
    if isinstance(value, str):
        return value
    if not all(_is_id(item) for item in value):
        raise ValueError("expected token ids: integers from 0")
    return tuple(value)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


class CompletionRequest(GenerationFields):
    """Prompts to continue."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "coxswain-chat",
                "prompt": "To repair the bicycle,",
                "max_tokens": 4,
                "steering": {"profile": "formal"},
            }
        }
    )

    prompt: Annotated[
        Any,
        BeforeValidator(
            _prompts, json_schema_input_type=str | list[str] | list[int] | list[list[int]]
        ),
    ]
    echo: bool = False
    chat_template: Refused = None
    chat_template_kwargs: Annotated[dict[str, Any], only({})] = Field(default_factory=dict)
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def prompts(self) -> list[_Prompt]:
        """Each prompt: a text, or token ids."""
        prompts: list[_Prompt] = self.prompt
        return prompts

    @model_validator(mode="after")
    def _consistent(self) -> CompletionRequest:
        if self.max_tokens == 0 and not self.echo and self.prompt_logprobs is None:
            raise InvalidParameterError(
                "max_tokens is 0 without echo; expected 1 or more", param="max_tokens"
            )
        return self


class _CompletionLogprobs(BaseModel):
    """Lists beside each other, one entry for each token; null for the first of an echoed prompt."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class _CompletionChunkChoice(BaseModel):
    index: int
    text: str = Field(examples=[" begin with the wheel."])
    logprobs: _CompletionLogprobs | None = Field(examples=[None])
    finish_reason: Literal["stop", "length"] | None = Field(examples=[None])
    stop_reason: int | str | None = None
    prompt_token_ids: list[int] | None = None
    token_ids: list[int] | None = None


class _CompletionChoice(_CompletionChunkChoice):
    finish_reason: Literal["stop", "length"] = Field(examples=["stop"])
    stop_reason: int | str | None = Field(examples=[None])
    prompt_logprobs: PromptLogprobs | None = None


class _CompletionBaseline(BaseModel):
    choices: list[_CompletionChoice]


class _CompletionSteering(AppliedSteering):
    baseline: _CompletionBaseline | None = Field(
        default=None, description="Without steering; `compare`."
    )


class Completion(Generated):
    """Continuations of prompts."""

    object: Literal["text_completion"]
    choices: list[_CompletionChoice]
    usage: Usage
    steering: _CompletionSteering


class CompletionChunk(Generated):
    """The data of one event of a streamed completion; `[DONE]` is the last."""

    object: Literal["text_completion"]
    choices: list[_CompletionChunkChoice]
    usage: Usage | None = None
    steering: AppliedSteering | None = Field(default=None, description="Of the last chunk.")
