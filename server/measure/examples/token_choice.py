"""Which tokens of a prompt are read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from steering.errors import InvalidFieldError
from steering.fields import shown

__all__ = ["TokenChoice", "TokenKind"]


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
        raise InvalidFieldError(
            f"data.token is {shown(value)}; expected 'last', 'post_instruction', 'mean' or an "
            "integer",
            param="data.token",
        )

    @property
    def document(self) -> str | int:
        """What `parse` reads."""
        return self.index if self.kind is TokenKind.INDEX else self.kind.value
