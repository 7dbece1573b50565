"""How much one request may take; values from the settings."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one HTTP request.

    Attributes:
        max_body_bytes: Of a JSON body.
        max_upload_bytes: Of an uploaded direction.
        max_choices: Choices of one prompt (`n`).
        max_prompts: Prompts of one request.
        max_messages: Messages of one chat.
        body_timeout_seconds: For the body to arrive.
        send_timeout_seconds: For a reader to take one chunk.
        keep_alive_seconds: Of silence in a stream before a comment is sent.
    """

    max_body_bytes: int = 8 * 2**20
    max_upload_bytes: int = 64 * 2**20
    max_choices: int = 16
    max_prompts: int = 256
    max_messages: int = 2048
    body_timeout_seconds: float = 30.0
    send_timeout_seconds: float = 30.0
    keep_alive_seconds: float = 15.0
