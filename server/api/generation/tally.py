"""What one choice has come to so far, and what a whole answer adds up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from server.engine.outputs import (
    FinishReason,
    GateState,
    MonitorReading,
    RequestOutput,
    SteeredTokens,
    TokenLogprobs,
)

__all__ = ["Tally", "usage"]


@dataclass(slots=True)
class Tally:
    """The outputs of one choice, added up.

    Attributes:
        is_first_of_prompt: Whether its prompt is counted here; further choices share it.
    """

    is_first_of_prompt: bool = True
    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_cached_tokens: int = 0
    steered_tokens: SteeredTokens = field(default_factory=SteeredTokens)
    monitors: tuple[MonitorReading, ...] = ()
    gates: tuple[GateState | None, ...] = ()

    def add(self, output: RequestOutput) -> None:
        """Take one more output of the choice."""
        self.texts.append(output.text)
        self.token_ids += output.token_ids
        self.logprobs += output.logprobs
        if output.prompt_logprobs is not None:
            self.prompt_logprobs = output.prompt_logprobs
        self.finish_reason = output.finish_reason
        self.stop_reason = output.stop_reason
        self.num_prompt_tokens = output.num_prompt_tokens
        self.num_output_tokens = output.num_output_tokens
        self.num_cached_tokens = output.num_cached_tokens
        self.steered_tokens = output.steered_tokens
        self.monitors = output.monitors
        self.gates = output.gates

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self.texts)


def usage(tallies: Sequence[Tally]) -> dict[str, Any]:
    """Tokens of an answer as OpenAI counts them; a prompt with several choices counts once."""
    first = [tally for tally in tallies if tally.is_first_of_prompt]
    prompt = sum(tally.num_prompt_tokens for tally in first)
    completion = sum(tally.num_output_tokens for tally in tallies)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(tally.num_cached_tokens for tally in first)},
    }
