"""`POST /v1/completions`, as clients send it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from server.api.http.errors import InvalidParameterError

from .sampling import GenerationFields

__all__ = ["CompletionRequest"]

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

    prompt: Annotated[Any, BeforeValidator(_prompts)]
    echo: bool = False
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
