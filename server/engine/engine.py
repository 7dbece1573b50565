"""The interface of an engine: what the API layer and jobs may ask of any back end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

from .outputs import CaptureResult, EngineInfo, EngineStats, RequestOutput, ScoreResult
from .request import CaptureRequest, GenerationRequest, ScoreRequest

if TYPE_CHECKING:
    from .text import Tokenizer

__all__ = ["Engine"]


class Engine(Protocol):
    """Serves many requests at once, each under its own steering."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back; safe to use from any thread."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[RequestOutput]:
        """Generate; the last output, and only it, has a `finish_reason`.

        The request is validated and queued when the iterator is first awaited. Closing the
        iterator aborts the request within one step.

        Raises:
            RequestRejectedError: Before the first output: refused at admission.
            GenerationError: This request failed.
            EngineDeadError: The step failed as a whole.
        """
        ...

    async def capture(self, request: CaptureRequest) -> CaptureResult:
        """Read activations at sites for prompts; raises as `generate`."""
        ...

    async def score(self, request: ScoreRequest) -> ScoreResult:
        """Log-probabilities of known text under some steering; raises as `generate`."""
        ...

    def abort(self, request_id: str) -> None:
        """End a request within one step; unknown ids are ignored."""
        ...

    def info(self) -> EngineInfo:
        """What is fixed after load."""
        ...

    def stats(self) -> EngineStats:
        """What changes while serving."""
        ...

    async def drain(self, timeout_seconds: float) -> None:
        """Refuse new requests, let running ones finish, fail those left at the timeout."""
        ...
