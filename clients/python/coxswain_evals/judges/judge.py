"""What every judge is: a function from a prompt and an answer to a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of one answer.

    Attributes:
        label: One of the judge's labels; None where what it said cannot be parsed.
        said: What it said, or the phrase it found; "" for nothing.
    """

    label: str | None
    said: str = ""


class Judge(Protocol):
    """Labels answers.

    Attributes:
        labels: Every label it may give.
    """

    @property
    def labels(self) -> frozenset[str]:
        """Every label it may give."""

    async def judge(self, prompt: str, answer: str) -> Verdict:
        """The label of one answer to one prompt.

        Raises:
            SteeringClientError: There is no verdict, after retries.
        """

    async def close(self) -> None:
        """Close its connections."""
