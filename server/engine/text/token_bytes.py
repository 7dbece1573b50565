"""The bytes a single token stands for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from tokenizers import Tokenizer as Backend

__all__ = ["token_bytes_reader"]

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-F]{2})>")
_METASPACE: Final = "\u2581"


def token_bytes_reader(backend: Backend) -> Callable[[int], bytes]:
    """A function from token id to bytes for this tokenizer's kind of vocabulary.

    Byte-level vocabularies write each byte as a printable character; SentencePiece ones write a
    space as U+2581 and bytes outside the vocabulary as `<0x0A>`. Added tokens are written as they
    are. An id without a token has no bytes.
    """
    decoder = str(backend.decoder.__getstate__()) if backend.decoder is not None else ""
    added = {
        token_id: token.content for token_id, token in backend.get_added_tokens_decoder().items()
    }
    read = _read_byte_level if "ByteLevel" in decoder else _read_metaspace

    def token_bytes(token_id: int) -> bytes:
        if token_id in added:
            return added[token_id].encode()
        token = backend.id_to_token(token_id)
        return b"" if token is None else read(token)

    return token_bytes


def _read_byte_level(token: str) -> bytes:
    return b"".join(_BYTES.get(character, character.encode()) for character in token)


def _read_metaspace(token: str) -> bytes:
    match = _BYTE_TOKEN.fullmatch(token)
    return bytes.fromhex(match[1]) if match else token.replace(_METASPACE, " ").encode()


def _byte_characters() -> dict[str, bytes]:
    """GPT-2's printable character of each byte, reversed."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    named = {chr(byte): bytes([byte]) for byte in printable}
    return named | {chr(256 + rank): bytes([byte]) for rank, byte in enumerate(others)}


_BYTES: Final = _byte_characters()
