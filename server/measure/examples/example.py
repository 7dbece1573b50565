"""One example prompt: a text, or the messages of a chat."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from steering.documents import Document, UnplacedError, read_at, refused
from steering.errors import InvalidFieldError, short_repr

_ROLES: Final = ("system", "user", "assistant")
_WORD: Final = re.compile(r"\w+")


def _filled(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise refused(f"is {short_repr(value)}; expected a text that is not empty", at_item=True)
    return value


def _wrong_role(value: Any) -> str:
    return (
        f"is {short_repr(value)}; expected 'user' or 'assistant', or 'system' for the first message"
    )


def _role(value: Any) -> Any:
    if value not in _ROLES:
        raise refused(_wrong_role(value))
    return value


class Turn(Document):
    """One turn of a chat."""

    noun: ClassVar[str] = "a message"
    form: ClassVar[str] = "an object with role and content"
    names_place: ClassVar[bool] = True

    role: Annotated[Literal["system", "user", "assistant"], BeforeValidator(_role)] = Field(
        description="Whose turn it is; `system` is the first one only."
    )
    content: Annotated[str, BeforeValidator(_filled)] = Field(
        description="What is said.", min_length=1
    )

    @classmethod
    def prepare(cls, document: dict[str, Any]) -> dict[str, Any]:
        """What is absent is refused like what is null."""
        return {"role": None, "content": None} | document


@dataclass(frozen=True)
class Example:
    """An item of data.

    Attributes:
        param: Where it stands in the request, for errors: `data.positive[3]`.
        messages: Role and content of each turn; a text is one turn of the user.
        is_text: Whether it was given as a text.
    """

    param: str
    messages: tuple[tuple[str, str], ...]
    is_text: bool

    @classmethod
    def parse(cls, item: Any, param: str) -> Self:
        """Read a string or a list of `{"role", "content"}`.

        Raises:
            InvalidFieldError: Anything else, an empty text, an unknown role, or a system message
                that is not the first.
        """
        example: Example = read_at(_EXAMPLE, item, param)
        return cls(param, example.messages, is_text=example.is_text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A text or a list of messages; the example has no place yet."""
        messages = handler.generate_schema(list[Turn])
        return core_schema.no_info_wrap_validator_function(_read_example, messages)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """A text, or messages."""
        return {"anyOf": [{"type": "string", "minLength": 1}, handler(schema) | {"minItems": 1}]}

    def placed(self, param: str) -> Self:
        """The example with its place in the request."""
        return replace(self, param=param)

    @cached_property
    def canonical(self) -> str:
        """A text that equal examples share: their messages as JSON."""
        return json.dumps(self.messages, ensure_ascii=False)

    @cached_property
    def subject(self) -> str:
        """The words of the user's turns; the split keeps examples that share them on one side.

        Case, spacing, punctuation, system prompts and answers do not count.
        """
        said = " | ".join(content for role, content in self.messages if role == "user")
        return " ".join(_WORD.findall(said.casefold())) or said

    @property
    def is_answered(self) -> bool:
        """Whether it ends with a turn of the assistant."""
        return self.messages[-1][0] == "assistant"

    @property
    def has_system(self) -> bool:
        """Whether it has a system prompt of its own."""
        return self.messages[0][0] == "system"

    def chat(self, system: str | None, *, with_answer: bool) -> list[dict[str, str]]:
        """Return messages for a chat template, below `system` unless that is None."""
        turns = self.messages
        if self.is_answered and not with_answer:
            turns = turns[:-1]
        head = [] if system is None else [("system", system)]
        return [{"role": role, "content": content} for role, content in (*head, *turns)]


def _read_example(value: Any, handler: core_schema.ValidatorFunctionWrapHandler) -> Example:
    if isinstance(value, Example):
        return value
    if isinstance(value, str):
        return Example("", (("user", _filled(value)),), is_text=True)
    if not isinstance(value, list | tuple) or not value:
        raise refused(
            f"is {short_repr(value)}; expected a text or a list of messages", at_item=True
        )
    messages: list[Turn] = handler(value)
    for turn, message in enumerate(messages[1:], start=1):
        if message.role == "system":
            after = f" {_wrong_role(message.role)}"
            raise UnplacedError(InvalidFieldError, "", f"[{turn}].role", after)
    if not any(message.role == "user" for message in messages):
        raise refused("has no message of the user; expected at least one", at_item=True)
    return Example("", tuple((item.role, item.content) for item in messages), is_text=False)


def place_examples(examples: Sequence[Example], param: str) -> tuple[Example, ...]:
    """Examples of a list with the places they have in it, `param[0]` for the first."""
    return tuple(example.placed(f"{param}[{index}]") for index, example in enumerate(examples))


def example_list(most: int) -> BeforeValidator:
    """Checks the length of a list of examples in a request that larger sets leave for a job."""

    def check(value: Any) -> Any:
        if isinstance(value, list) and 0 < len(value) <= most:
            return value
        size = f"has {len(value):,} entries" if isinstance(value, list) else "is not a list"
        raise refused(f"{size}; expected 1 to {most:,}; larger sets go through a job")

    return BeforeValidator(check)


_EXAMPLE: Final = TypeAdapter(Example)
