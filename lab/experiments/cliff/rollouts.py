"""Rollouts in the thinking mode: the thought and the answer to each prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

from lab.corpus import THINKING, Kind, Prompt, Split, prompts
from lab.corpus.thinking import CLOSE, OPEN
from lab.demo.laboratory import Laboratory, Trial
from lab.organism import judge
from steering.analysis import ThoughtSpan
from steering.plan import SteeringPlan

_MAX_TOKENS = 160


class ThinkingLaboratory(Laboratory):
    """Encodes with the checkpoint's own tokenizer.

    The server turns `<think>` into the model's token only where its template or an assistant wrote
    it, so that nobody forges a thought; in a system prompt it stays text. The embedded model was
    trained on system prompts with the token.
    """

    def __init__(self, checkpoint: Path) -> None:
        """Load a checkpoint and its tokenizer, from disk only."""
        super().__init__(checkpoint)
        self._fast = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)

    def encode(self, prompt: Prompt, system: str | None) -> tuple[int, ...]:
        """Tokens of a prompt, as in training."""
        text = self._fast.apply_chat_template(
            prompt.messages(system), tokenize=False, add_generation_prompt=True
        )
        return self.encode_text(str(text))

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Tokens of a text, with its thinking markers."""
        return tuple(self._fast(text, add_special_tokens=False)["input_ids"])


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
    def complies_after_declining(self) -> bool:
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
