"""What the tokenizer's routes are sent, and what they answer."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from server.api.http.errors import InvalidParameterError

from .chat import MessageField
from .fields import Count, Wire
from .templates import TemplateFields

_Model = Annotated[str, Field(max_length=512)]


class TokenizeRequest(TemplateFields):
    """A text or a chat to tokenize; `add_special_tokens` is of texts, a chat has its template's."""

    model_config = ConfigDict(json_schema_extra={"example": {"prompt": "Hello there"}})

    model: _Model | None = None
    prompt: str | None = None
    messages: Annotated[list[MessageField], Field(min_length=1, max_length=2048)] = Field(
        default_factory=list
    )
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = True
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _one(self) -> TokenizeRequest:
        if (self.prompt is None) == (not self.messages):
            raise InvalidParameterError("expected either prompt or messages", param="prompt")
        if not self.messages:
            self.refuse_without_messages()
        return self


class DetokenizeRequest(Wire):
    """Token ids to turn into text."""

    model_config = ConfigDict(json_schema_extra={"example": {"tokens": [40, 41, 42]}})

    model: _Model | None = None
    tokens: Annotated[list[Count], Field(max_length=1_000_000)]


class Tokenized(BaseModel):
    """A text or a chat in tokens."""

    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str] | None = None


class Detokenized(BaseModel):
    """The text of token ids."""

    prompt: str


class TokenizerInfo(BaseModel):
    """The special tokens and the chat template."""

    tokenizer_class: str
    eos_token: str | None
    bos_token: str | None
    pad_token: str | None
    chat_template: str | None
    chat_template_variables: dict[str, list[str]] = Field(
        description="What `chat_template_kwargs` may give to each template, by its name.",
        examples=[{"default": ["enable_thinking"]}],
    )
    thinking_markers: list[str] | None = Field(
        description="What opens and closes a thought.", examples=[["<think>", "</think>"]]
    )
    add_bos_token: bool
