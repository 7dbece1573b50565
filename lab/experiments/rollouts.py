"""Thoughts and answers in the thinking mode, with a probe's score along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.corpus import THINKING, Kind, Prompt, Split, prompts
from lab.corpus.thinking import CLOSE, OPEN
from lab.demo.laboratory import Trial
from lab.organism import judge
from steering.analysis import ThoughtSpan
from steering.plan import SteeringPlan

from .thinking import ThinkingLaboratory

__all__ = ["Rollout", "roll_out"]

_MAX_TOKENS = 160


@dataclass(frozen=True, slots=True)
class Rollout:
    """What the model thought and said.

    Attributes:
        prompt: What was asked.
        prefix: Its text up to where the answer begins: the thought between its markers.
        span: Where the thought is in prompt and prefix.
        answer: Its answer.
        declines: Whether the thought says that it should decline.
        refuses: Whether the answer refuses.
    """

    prompt: Prompt
    prefix: str
    span: ThoughtSpan
    answer: str
    declines: bool
    refuses: bool

    @property
    def falls(self) -> bool:
        """Whether the thought declines and the answer complies."""
        return self.declines and not self.refuses


def roll_out(
    laboratory: ThinkingLaboratory,
    split: Split,
    kind: Kind,
    count: int,
    plan: SteeringPlan | None = None,
) -> list[Rollout]:
    """Greedy rollouts under the thinking system prompt; those without thought or answer left out.

    The prefix is the model's own text, encoded again: what it generated token by token.
    """
    asked = prompts(split, kind, count)
    (texts,) = laboratory.rollouts([Trial(asked, plan, THINKING)], max_tokens=_MAX_TOKENS)
    return [
        _rollout(laboratory, prompt, text)
        for prompt, text in zip(asked, texts, strict=True)
        if _is_complete(text)
    ]


def _is_complete(text: str) -> bool:
    thought, answer = judge.split_thought(text)
    return bool(thought and answer)


def _rollout(laboratory: ThinkingLaboratory, prompt: Prompt, text: str) -> Rollout:
    thought, answer = judge.split_thought(text)
    assert thought, "checked before"
    start, mark, _ = text.partition(f"{CLOSE}\n")
    prefix = start + mark
    return Rollout(
        prompt,
        prefix,
        _span(laboratory, laboratory.encode(prompt, THINKING), prefix),
        answer,
        judge.wants_refusal(thought),
        judge.is_refusal(answer),
    )


def _span(laboratory: ThinkingLaboratory, asked: Sequence[int], prefix: str) -> ThoughtSpan:
    tokens = [*asked, *laboratory.encode_text(prefix)]
    (opened,), (closed,) = (laboratory.encode_text(marker) for marker in (OPEN, CLOSE))
    last = len(tokens) - 1 - tokens[::-1].index(closed)
    first = len(asked) + tokens[len(asked) :].index(opened)
    return ThoughtSpan(first + 1, last, len(tokens))
