"""What the unedited model does after prompts that edits should leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from torch import Tensor

from steering.plan import SteeringPlan

from .instrument import Instrument

_ANSWER_TOKENS: Final = 48
_Windows = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Baseline:
    """The unedited model's first answer tokens and greedy answers.

    Attributes:
        instrument: Measures the model.
        prompts: Token ids of each prompt.
        plain: Natural-log probabilities of the first answer token, [N, vocab].
        texts: Token ids of each prompt followed by its answer.
        windows: Half-open positions in each text that predict the answer's tokens.
        perplexity: exp of the mean negative log-probability of the answers' tokens.
    """

    instrument: Instrument
    prompts: tuple[tuple[int, ...], ...]
    plain: Tensor
    texts: tuple[tuple[int, ...], ...]
    windows: _Windows
    perplexity: float

    @classmethod
    async def of(cls, instrument: Instrument, prompts: Sequence[tuple[int, ...]]) -> Self:
        """Measure the unedited model on prompts of token ids; answers have at most 48 tokens."""
        plain = await instrument.next_token(prompts)
        room = min(_ANSWER_TOKENS, instrument.max_model_len - max(map(len, prompts)))
        answers = await instrument.completions(prompts, max_tokens=room)
        pairs = list(zip(prompts, answers, strict=True))
        texts = tuple(prompt + answer for prompt, answer in pairs)
        windows = tuple((len(p) - 1, len(p) + len(answer) - 1) for p, answer in pairs)
        perplexity = await instrument.perplexity(texts, windows=windows)
        return cls(instrument, tuple(prompts), plain, texts, windows, perplexity)

    async def kl(self, plan: SteeringPlan) -> float:
        """Return the mean over prompts of KL(unedited || edited), nats, of first answer tokens."""
        values = await self.instrument.kl(self.prompts, plan, plain=self.plain)
        return sum(values) / len(values)

    async def perplexity_under(self, plan: SteeringPlan) -> float:
        """Return the edited model's perplexity on the unedited model's answers."""
        return await self.instrument.perplexity(
            self.texts,
            plan=plan,
            windows=self.windows,
            steering_prompt_tokens=[len(prompt) for prompt in self.prompts],
        )
