"""How much one request may take; values from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .body import Bounds

__all__ = ["MAX_CHARS_PER_TOKEN", "Limits"]

MAX_CHARS_PER_TOKEN: Final = 12
"""No token has more characters than this on average over a text that is one."""

_FORM_OVERHEAD_BYTES: Final = 2**20
_BASE64_GROWTH: Final = 4 / 3
_MAX_BYTES_PER_CHAR: Final = 12  # a surrogate pair in escapes
_MAX_FIELD_BYTES: Final = 2**20  # of a chat, beside its messages
_MAX_CHAT_VALUES: Final = 2**17
_MAX_DOCUMENT_VALUES: Final = 2**18
_MAX_PROMPT_TOKENS: Final = 2**20  # in one request
_MAX_TENSOR_VALUES: Final = 2**21


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one HTTP request.

    Attributes:
        max_model_len: Tokens of prompt and answer.
        max_body_bytes: Of a JSON body.
        max_upload_bytes: Of an uploaded direction.
        max_choices: Choices of one prompt (`n`).
        max_prompts: Prompts of one request.
        max_messages: Messages of one chat.
        body_timeout_seconds: For the body to arrive.
        send_timeout_seconds: For a reader to take one chunk.
        keep_alive_seconds: Of silence in a stream before a comment is sent.
    """

    max_model_len: int
    max_body_bytes: int = 8 * 2**20
    max_upload_bytes: int = 64 * 2**20
    max_choices: int = 16
    max_prompts: int = 256
    max_messages: int = 2048
    body_timeout_seconds: float = 30.0
    send_timeout_seconds: float = 30.0
    keep_alive_seconds: float = 15.0

    @property
    def chat(self) -> Bounds:
        """Of a chat, or one text: what could be a context, written in the longest way."""
        most = _MAX_FIELD_BYTES + _MAX_BYTES_PER_CHAR * MAX_CHARS_PER_TOKEN * self.max_model_len
        return Bounds(min(most, self.max_body_bytes), _MAX_CHAT_VALUES)

    @property
    def prompts(self) -> Bounds:
        """Of prompts, which may be token ids."""
        most = min(self.max_prompts * self.max_model_len, _MAX_PROMPT_TOKENS)
        return Bounds(self.max_body_bytes, _MAX_CHAT_VALUES + most)

    @property
    def document(self) -> Bounds:
        """Of a profile, an alias, a key, a job or an analysis."""
        return Bounds(self.max_body_bytes, _MAX_DOCUMENT_VALUES)

    @property
    def upload(self) -> Bounds:
        """Of a direction in JSON; more numbers than this go into base64 or a file."""
        return Bounds(self.max_json_upload_bytes, _MAX_TENSOR_VALUES)

    @property
    def max_json_upload_bytes(self) -> int:
        """Of a direction whose file is text in JSON."""
        return int(self.max_upload_bytes * _BASE64_GROWTH)

    @property
    def max_form_bytes(self) -> int:
        """Of a direction whose file is a part of a form."""
        return self.max_upload_bytes + _FORM_OVERHEAD_BYTES

    @property
    def max_any_body_bytes(self) -> int:
        """Of a body before it is known what it is."""
        return max(self.max_body_bytes, self.max_json_upload_bytes, self.max_form_bytes)
