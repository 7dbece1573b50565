"""Examples as the model reads them: token ids, and which of them are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, WithJsonSchema

from server.engine.errors import RequestRejectedError
from server.engine.request import TemplateOptions
from server.engine.text import Tokenizer
from steering.documents import Region, refused
from steering.errors import InvalidFieldError, short_repr

from .example import Example

_PROBES: Final = ("a", "7", "?")  # contents that share no last character


class TokenKind(StrEnum):
    """How tokens are chosen."""

    LAST = "last"
    POST_INSTRUCTION = "post_instruction"
    MEAN = "mean"
    INDEX = "index"


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """`last` prompt token, all template tokens after the instruction, `mean` of answer, or one.

    Attributes:
        kind: How.
        index: Position of a token, negative from the end; with `INDEX` alone.
    """

    kind: TokenKind
    index: int = -1

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read `"last"`, `"post_instruction"`, `"mean"` or an integer; nothing means `"last"`.

        Raises:
            InvalidFieldError: Anything else.
        """
        if value is None:
            return cls(TokenKind.LAST)
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(TokenKind.INDEX, value)
        if value in (TokenKind.LAST, TokenKind.POST_INSTRUCTION, TokenKind.MEAN):
            return cls(TokenKind(value))
        raise InvalidFieldError(f"data.token {_wrong_token(value)}", param="data.token")

    @property
    def document(self) -> str | int:
        """The choice as `data.token` of a request states it."""
        return self.index if self.kind is TokenKind.INDEX else self.kind.value


def _wrong_token(value: Any) -> str:
    return f"is {short_repr(value)}; expected 'last', 'post_instruction', 'mean' or an integer"


def _token(value: Any) -> Any:
    if isinstance(value, TokenChoice):
        return value
    try:
        return TokenChoice.parse(value)
    except InvalidFieldError:
        raise refused(_wrong_token(value)) from None


ReadToken = Annotated[
    TokenChoice,
    BeforeValidator(_token),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "string",
                    "enum": [k.value for k in TokenKind if k is not TokenKind.INDEX],
                },
                {"type": "integer"},
            ]
        }
    ),
]
"""A member that says which tokens of an example are read: by name, or one by its position."""


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    """A prompt to capture from.

    Attributes:
        token_ids: All tokens of the prompt.
        window: Half-open positions of the tokens that are read.
        param: Where its example stands in the request, for errors.
    """

    token_ids: tuple[int, ...]
    window: tuple[int, int]
    param: str


class ExamplePrompts:
    """Renders examples with the server's own chat template, or as plain text without one.

    Text of users is encoded with special tokens disabled, as in serving.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        choice: TokenChoice,
        system: str | None,
        max_tokens: int,
        variables: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Prepare to render examples of which the tokens of `choice` are read.

        Args:
            tokenizer: The served model's.
            choice: Which tokens are read.
            system: A system prompt for prompts that are read, absent from those that are served;
                None for no such prompt.
            max_tokens: Most tokens of a prompt.
            variables: Values of variables of the chat template, for prompts read and served.

        Raises:
            InvalidFieldError: The choice, the system prompt or variables need a chat template, and
                the model has none.
        """
        self._tokenizer = tokenizer
        self._choice = choice
        self._system = system
        self._max_tokens = max_tokens
        self._options = TemplateOptions(variables=variables)
        self._has_chat = tokenizer.chat_template is not None
        if system is not None and not self._has_chat:
            raise self._no_template("data.system_prompt")
        if variables and not self._has_chat:
            raise self._no_template("data.chat_template_kwargs")
        if choice.kind in (TokenKind.POST_INSTRUCTION, TokenKind.MEAN) and not self._has_chat:
            raise self._no_template("data.token")

    @property
    def positions(self) -> tuple[int | None, ...]:
        """The tokens read of every prompt, counted from its end; None where they are pooled."""
        match self._choice.kind:
            case TokenKind.LAST:
                return (-1,)
            case TokenKind.POST_INSTRUCTION:
                return tuple(range(-len(self._tail), 0))
            case TokenKind.INDEX if self._choice.index < 0:
                return (self._choice.index,)
            case _:
                return (None,)

    def notes(self) -> tuple[str, ...]:
        """Sentences that say how the prompts were written, where that was asked for."""
        given = dict(self._options.variables)
        if not given:
            return ()
        return (
            f"chats were written with chat_template_kwargs {json.dumps(given)}; serve it with them",
        )

    def read(self, example: Example) -> ReadPrompt:
        """Return the prompt to capture from, below the transient system prompt.

        Raises:
            InvalidFieldError: The example does not fit the choice of tokens; names it.
            RequestRejectedError: The chat template refuses it, or it is too long; names it.
        """
        kind = self._choice.kind
        if kind is TokenKind.MEAN and not example.is_answered:
            raise InvalidFieldError(
                f"{example.param} does not end with a turn of the assistant, and data.token "
                "'mean' reads that turn; add the answer or read another token",
                param=example.param,
            )
        if kind in (TokenKind.LAST, TokenKind.POST_INSTRUCTION) and example.is_answered:
            raise InvalidFieldError(
                f"{example.param} ends with a turn of the assistant, and data.token {kind.value!r} "
                "reads the end of a prompt; leave the answer out, or read 'mean' or an index",
                param=example.param,
            )
        if self._system is not None and example.has_system:
            raise InvalidFieldError(
                f"{example.param} has a system message, and data.system_prompt gives one to every "
                "example; remove one of them",
                param=example.param,
            )
        token_ids, regions = self._render(example, self._system, with_answer=True)
        return ReadPrompt(token_ids, self._window(example, token_ids, regions), example.param)

    def serve(self, example: Example) -> tuple[int, ...]:
        """Return the prompt as a chat would send it: no transient system prompt, no answer yet.

        Raises:
            RequestRejectedError: The chat template refuses it, or it is too long; names it.
        """
        return self._render(example, None, with_answer=False)[0]

    def _render(
        self, example: Example, system: str | None, *, with_answer: bool
    ) -> tuple[tuple[int, ...], bytes | None]:
        regions = None
        if self._has_chat:
            is_open = example.is_answered and with_answer
            try:
                chat = self._tokenizer.render_chat(
                    example.chat(system, with_answer=with_answer),
                    add_generation_prompt=not is_open,
                    continue_final_message=is_open,
                    options=self._options,
                )
            except RequestRejectedError as error:
                raise RequestRejectedError(
                    f"{example.param}: {error}", param=example.param
                ) from error
            token_ids, regions = chat.token_ids, chat.regions
        elif example.is_text:
            token_ids = tuple(self._tokenizer.encode(example.messages[0][1]))
        else:
            raise self._no_template(example.param)
        if len(token_ids) > self._max_tokens:
            raise RequestRejectedError(
                f"{example.param} has {len(token_ids):,} tokens; the model takes "
                f"{self._max_tokens:,}; shorten it",
                param=example.param,
            )
        return token_ids, regions

    def _window(
        self, example: Example, token_ids: Sequence[int], regions: bytes | None
    ) -> tuple[int, int]:
        length = len(token_ids)
        match self._choice.kind:
            case TokenKind.LAST:
                return length - 1, length
            case TokenKind.MEAN:
                return _answer_start(example, regions), length
            case TokenKind.POST_INSTRUCTION:
                start = length - len(self._tail)
                if tuple(token_ids[start:]) != self._tail:
                    raise InvalidFieldError(
                        f"{example.param} does not end with the template's own tokens: its last "
                        "character is encoded together with them; end it with a letter or a sign",
                        param=example.param,
                    )
                return start, length
        index = self._choice.index
        position = index if index >= 0 else length + index
        if not 0 <= position < length:
            raise InvalidFieldError(
                f"data.token is {index}, and {example.param} has {length} tokens; expected "
                f"{-length} to {length - 1}",
                param=example.param,
            )
        return position, position + 1

    @cached_property
    def _tail(self) -> tuple[int, ...]:
        """The chat template's tokens after the user's content.

        They are what three prompts end with whose contents share no last character.
        """
        rendered = [
            self._tokenizer.render_chat(
                [{"role": "user", "content": probe}], options=self._options
            ).token_ids[::-1]
            for probe in _PROBES
        ]
        common = []
        for tokens in zip(*rendered, strict=False):
            if len(set(tokens)) > 1:
                break
            common.append(tokens[0])
        if not common:
            raise InvalidFieldError(
                "data.token is 'post_instruction', and the model's chat template writes nothing "
                "after the user's content; use 'last'",
                param="data.token",
            )
        return tuple(reversed(common))

    def _no_template(self, param: str) -> InvalidFieldError:
        return InvalidFieldError(
            f"{param} needs a chat template, and this model has none; give texts, and token "
            "'last' or an index",
            param=param,
        )


def _answer_start(example: Example, regions: bytes | None) -> int:
    """Return where the run of answer tokens begins that ends with the prompt."""
    start = len(regions or b"")
    while regions and start > 0 and regions[start - 1] & Region.ANSWER:
        start -= 1
    if regions is None or start == len(regions):
        raise InvalidFieldError(
            f"the answer of {example.param} cannot be told apart in the rendered chat; read "
            "another token",
            param=example.param,
        )
    return start
