"""`POST /v1/chat/completions`, as clients send it and as it is answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from server.api.http.errors import InvalidParameterError

from .answers import Generated
from .fields import UNSUPPORTED, Count, Wire
from .sampling import GenerationFields, Refused, only
from .steering import AppliedSteering
from .templates import RenderedTemplate, TemplateFields

_MAX_MESSAGES = 2048


def _text(value: Any) -> Any:
    """Text of a content: a string, or the texts of its parts one after the other."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise ValueError("expected a string or a list of text parts")
    texts = []
    for part in value:
        if not isinstance(part, dict):
            raise ValueError("expected each part to be an object")
        if part.get("type") != "text":
            raise PydanticCustomError(UNSUPPORTED, "only parts of type 'text' are supported")
        if set(part) != {"type", "text"} or not isinstance(part["text"], str):
            raise ValueError("expected text parts of the form {type, text}")
        texts.append(part["text"])
    return "".join(texts)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: item for name, item in value.items() if item is not None}
    return value


class _TextPart(Wire):
    """A part of a content."""

    type: Literal["text"]
    text: str


class Message(Wire):
    """One turn. `developer` is another name of `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_text, json_schema_input_type=str | list[_TextPart])]
    reasoning_content: str | None = Field(
        default=None, description="The thought before it, of the assistant; also as `reasoning`."
    )
    reasoning: str | None = None
    name: Refused = None
    refusal: Refused = None
    audio: Refused = None
    annotations: Annotated[list[Any], only([])] = Field(default_factory=list)
    tool_calls: Annotated[list[Any], only([])] = Field(default_factory=list)
    function_call: Refused = None

    @property
    def thought(self) -> str:
        """What the assistant thought before it."""
        return self.reasoning_content or self.reasoning or ""

    @model_validator(mode="after")
    def _thought_is_one(self) -> Message:
        if self.thought and self.role != "assistant":
            raise ValueError(f"has a thought, and its role is {self.role}; only assistants think")
        if self.reasoning and self.reasoning_content not in (None, "", self.reasoning):
            raise ValueError("has reasoning and reasoning_content, and they differ; give one")
        return self


MessageField = Annotated[Message, BeforeValidator(_without_nulls)]


class ChatRequest(GenerationFields, TemplateFields):
    """A chat to continue by an assistant turn."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "coxswain-chat",
                "messages": [{"role": "user", "content": "How can I grow tomatoes?"}],
                "max_tokens": 40,
                "temperature": 0.7,
                "steering": {
                    "interventions": [{"operation": "add", "direction": "cheerful", "strength": 2}]
                },
            }
        }
    )

    messages: Annotated[
        list[MessageField],
        Field(min_length=1, max_length=_MAX_MESSAGES),
    ]
    max_completion_tokens: Count | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    parallel_tool_calls: bool = True
    modalities: Annotated[list[str], only(["text"])] = Field(default_factory=lambda: ["text"])
    audio: Refused = None
    reasoning_format: Literal["parsed", "raw", "hidden"] | None = Field(
        default=None,
        description="Thoughts as `reasoning_content`, in `content`, or left out.",
    )
    include_reasoning: bool | None = Field(
        default=None, description="False: as `reasoning_format` hidden."
    )
    verbosity: Refused = None
    prediction: Refused = None
    web_search_options: Refused = None

    @model_validator(mode="after")
    def _consistent(self) -> ChatRequest:
        if self.include_reasoning is False and self.reasoning_format not in (None, "hidden"):
            raise InvalidParameterError(
                f"include_reasoning is false and reasoning_format is {self.reasoning_format!r}; "
                "give one",
                param="include_reasoning",
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidParameterError(
                "top_logprobs is given without logprobs; set logprobs to true",
                param="top_logprobs",
            )
        asked_for_both = {
            "add_generation_prompt",
            "continue_final_message",
        } <= self.model_fields_set
        if asked_for_both and self.add_generation_prompt and self.continue_final_message:
            raise InvalidParameterError(
                "add_generation_prompt and continue_final_message are both true; choose one",
                param="continue_final_message",
            )
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise InvalidParameterError(
                "continue_final_message is true, but the last message is not the assistant's",
                param="continue_final_message",
            )
        if None not in (self.max_tokens, self.max_completion_tokens) and (
            self.max_tokens != self.max_completion_tokens
        ):
            raise InvalidParameterError(
                "max_tokens and max_completion_tokens differ; give one", param="max_tokens"
            )
        if 0 in (self.max_tokens, self.max_completion_tokens):
            raise InvalidParameterError("max_tokens is 0; expected 1 or more", param="max_tokens")
        return self


class _CachedTokens(BaseModel):
    cached_tokens: int


class _ReasoningTokens(BaseModel):
    reasoning_tokens: int = Field(description="Of thoughts, their markers included.")


class Usage(BaseModel):
    """Tokens of an answer; a prompt with several choices counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _CachedTokens
    completion_tokens_details: _ReasoningTokens | None = Field(
        default=None, description="Of chats with a model that thinks."
    )


class _PromptLogprob(BaseModel):
    """A token that could have stood at a position of the prompt."""

    logprob: float = Field(description="Natural logarithm; -9999 for minus infinity.")
    rank: int | None
    decoded_token: str


PromptLogprobs = list[dict[str, _PromptLogprob] | None]
"""By position, then by token id; null for the first."""


class _TokenLogprob(BaseModel):
    token: str
    logprob: float = Field(description="Natural logarithm; -9999 for minus infinity.")
    bytes: list[int]


class _SampledToken(_TokenLogprob):
    top_logprobs: list[_TokenLogprob]


class _ChatLogprobs(BaseModel):
    content: list[_SampledToken]
    refusal: None


class _AnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str = Field(examples=["Give them sun and water."])
    reasoning_content: str | None = Field(
        default=None, description="What was thought before it; also as `reasoning`."
    )
    reasoning: str | None = None
    refusal: None


class _ChatChoice(BaseModel):
    index: int
    message: _AnswerMessage
    logprobs: _ChatLogprobs | None = Field(examples=[None])
    finish_reason: Literal["stop", "length"]
    stop_reason: int | str | None = Field(
        description="The stop string or token id, if any.", examples=[None]
    )
    token_ids: list[int] | None = None


class _ChatBaseline(BaseModel):
    choices: list[_ChatChoice]


class _ChatSteering(AppliedSteering):
    baseline: _ChatBaseline | None = Field(default=None, description="Without steering; `compare`.")


class ChatCompletion(Generated):
    """A chat's continuations."""

    object: Literal["chat.completion"]
    choices: list[_ChatChoice]
    usage: Usage
    steering: _ChatSteering
    chat_template: RenderedTemplate | None = Field(
        default=None, description="Where the request asks for something, or a turn was moved."
    )
    prompt_logprobs: PromptLogprobs | None = None
    prompt_token_ids: list[int] | None = None


class _Delta(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = Field(default=None, description="Also as `reasoning`.")
    reasoning: str | None = None


class _ChatChunkChoice(BaseModel):
    index: int
    delta: _Delta = Field(examples=[{"content": "Give"}])
    logprobs: _ChatLogprobs | None = Field(examples=[None])
    finish_reason: Literal["stop", "length"] | None = Field(examples=[None])
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None


class ChatChunk(Generated):
    """The data of one event of a streamed chat; `[DONE]` is the last."""

    object: Literal["chat.completion.chunk"]
    choices: list[_ChatChunkChoice]
    usage: Usage | None = None
    steering: AppliedSteering | None = Field(default=None, description="Of the last chunk.")
    chat_template: RenderedTemplate | None = Field(default=None, description="Of the last chunk.")
    prompt_token_ids: list[int] | None = None
