"""From text, messages and token ids to the prompts that the engine runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from server.api.http.errors import InvalidParameterError
from server.api.http.limits import MAX_CHARS_PER_TOKEN
from server.api.schemas.chat import Message
from server.api.schemas.completions import CompletionRequest
from server.api.schemas.templates import TemplateFields
from server.engine.errors import PromptTooLongError
from server.engine.outputs import AppliedTemplate, EngineInfo
from server.engine.request import TemplateOptions

if TYPE_CHECKING:
    from server.engine.text import Tokenizer


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt in tokens.

    Attributes:
        token_ids: At least one.
        text: As given, where it was given as text.
        regions: Region bits per token, for chats whose template marks turns.
        roles: Role of the message each token is part of, None for the template's own; as `regions`.
        is_thinking: Of a chat, whether it ends within a thought.
        template: Of a chat, how it was rendered.
    """

    token_ids: tuple[int, ...]
    text: str | None = None
    regions: bytes | None = None
    roles: tuple[str | None, ...] | None = None
    is_thinking: bool | None = None
    template: AppliedTemplate | None = None


class _Chat(Protocol):
    """Messages, and whether the model continues the last or begins one of its own."""

    @property
    def messages(self) -> Sequence[Message]: ...

    @property
    def add_generation_prompt(self) -> bool: ...

    @property
    def continue_final_message(self) -> bool: ...

    @property
    def template_options(self) -> TemplateOptions: ...


def render_chat(tokenizer: Tokenizer, chat: _Chat, max_model_len: int) -> Prompt:
    """Render a chat by the model's own template; text of users never becomes special tokens.

    Raises:
        PromptTooLongError: Far longer than the context, told without tokenizing.
    """
    num_chars = sum(len(turn.content) + len(turn.thought) for turn in chat.messages)
    _check_length(num_chars, max_model_len, "messages")
    rendered = tokenizer.render_chat(
        [_as_rendered(turn) for turn in chat.messages],
        add_generation_prompt=chat.add_generation_prompt and not chat.continue_final_message,
        continue_final_message=chat.continue_final_message,
        options=chat.template_options,
    )
    return Prompt(
        rendered.token_ids,
        regions=rendered.regions,
        roles=rendered.roles,
        is_thinking=rendered.is_thinking,
        template=rendered.template,
    )


def _as_rendered(turn: Message) -> dict[str, str]:
    role = "system" if turn.role == "developer" else turn.role
    thought = {"reasoning_content": turn.thought} if turn.thought else {}
    return {"role": role, "content": turn.content, **thought}


def asks_of_template(chat: TemplateFields, prompt: Prompt) -> bool:
    """Return whether a chat's answer is to say how it was rendered.

    It says so where the request asks for something, or where a message was moved.
    """
    is_moved = prompt.template is not None and prompt.template.merges_system
    return is_moved or chat.template_options != TemplateOptions()


def check_message_count(document: Mapping[str, Any], most: int) -> None:
    """Check that a chat has at most `most` messages, before each of them is validated.

    Raises:
        PromptTooLongError: It has more.
    """
    messages = document.get("messages")
    if isinstance(messages, list) and len(messages) > most:
        raise PromptTooLongError(
            f"messages has {len(messages):,} messages; expected at most {most:,}", param="messages"
        )


def encode_text(
    tokenizer: Tokenizer, text: str, max_model_len: int, *, add_special_tokens: bool = True
) -> Prompt:
    """Encode a text, after the model's beginning token where it has one and that is wanted.

    Raises:
        PromptTooLongError: Far longer than the context, told without tokenizing.
        InvalidParameterError: It has no tokens.
    """
    _check_length(len(text), max_model_len, "prompt")
    token_ids = tuple(tokenizer.encode(text, add_special_tokens=add_special_tokens))
    if not token_ids:
        raise InvalidParameterError("prompt has no tokens; send some text", param="prompt")
    return Prompt(token_ids, text)


def read_prompts(
    tokenizer: Tokenizer, body: CompletionRequest, info: EngineInfo, *, max_prompts: int
) -> list[Prompt]:
    """Return the prompts of a completion request, each a text or token ids.

    Raises:
        InvalidParameterError: Too many, or a token the model does not have.
        PromptTooLongError: As `encode_text`.
    """
    if len(body.prompts) > max_prompts:
        raise InvalidParameterError(
            f"prompt has {len(body.prompts)} prompts; expected at most {max_prompts}",
            param="prompt",
        )
    prompts = []
    for prompt in body.prompts:
        if isinstance(prompt, str):
            prompts.append(encode_text(tokenizer, prompt, info.max_model_len))
        else:
            check_token_ids(prompt, info, "prompt")
            prompts.append(Prompt(prompt))
    return prompts


def check_token_ids(ids: Sequence[int], info: EngineInfo, param: str) -> None:
    """Check that every token id is in the model's vocabulary.

    Raises:
        InvalidParameterError: One is not.
    """
    if any(not 0 <= token_id < info.vocab_size for token_id in ids):
        raise InvalidParameterError(
            f"{param} has a token id outside the vocabulary; expected 0 to {info.vocab_size - 1}",
            param=param,
        )


def _check_length(num_chars: int, max_model_len: int, param: str) -> None:
    most = MAX_CHARS_PER_TOKEN * max_model_len
    if num_chars > most:
        raise PromptTooLongError(
            f"{param} has {num_chars:,} characters; a context of {max_model_len:,} tokens holds "
            f"at most about {most:,}; shorten it",
            param=param,
        )
