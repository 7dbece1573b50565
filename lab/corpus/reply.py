"""What the assistant says back."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Reply"]


@dataclass(frozen=True)
class Reply:
    """One assistant message before a thought is put in front of it.

    Attributes:
        answer: What the user reads.
        thought: What stands between the think tags when thinking is on.
        steps: The advice given, without style, for follow-up questions.
    """

    answer: str
    thought: str
    steps: tuple[str, ...] = ()
