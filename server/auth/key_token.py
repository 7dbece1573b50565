"""The text of an API key: `sk-cox-<id>-<secret>-<checksum>`."""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass, field
from typing import Final, Self

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH: Final = 8
_SECRET_BYTES: Final = 32
_SECRET_LENGTH: Final = 43  # base62 digits of 256 bits
_CHECKSUM_LENGTH: Final = 6  # base62 digits of 32 bits
_FORM: Final = re.compile(
    rb"(sk-cox-([0-9A-Za-z]{%d})-[0-9A-Za-z]{%d})-([0-9A-Za-z]{%d})"
    % (_ID_LENGTH, _SECRET_LENGTH, _CHECKSUM_LENGTH)
)


@dataclass(frozen=True, slots=True)
class KeyToken:
    """A key as its holder has it. Never stored and never logged.

    Attributes:
        key_id: Public; finds the row.
        text: The whole key, secret.
    """

    key_id: str
    text: str = field(repr=False)

    @classmethod
    def mint(cls) -> Self:
        """Make a new key with 256 random bits."""
        key_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
        number = int.from_bytes(secrets.token_bytes(_SECRET_BYTES))
        body = f"sk-cox-{key_id}-{_base62(number, _SECRET_LENGTH)}"
        return cls(key_id, f"{body}-{_checksum(body.encode())}")

    @classmethod
    def parse(cls, token: bytes) -> Self | None:
        """Read what a client sent; None if it has another form or a wrong checksum."""
        match = _FORM.fullmatch(token)
        if match is None or _checksum(match[1]).encode() != match[3]:
            return None
        return cls(match[2].decode(), token.decode())

    @property
    def digest(self) -> bytes:
        """SHA-256 of the text. The secret is random, so that a slow hash would add nothing."""
        return hashlib.sha256(self.text.encode()).digest()


def _checksum(body: bytes) -> str:
    return _base62(zlib.crc32(body), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
