"""Answers asked of a server under a steering, and what is measured of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from coxswain_client import ChatMessage, Coxswain
from server.models import SMOLLM2_DEMO_DIR

from .concepts import Concept, as_messages, read_examples
from .judge import JUDGES, repetition

AT_ONE: Final[Mapping[str, Any]] = {"temperature": 1.0, "top_p": 1.0}
"""The distribution as it is: what a client gets that asks for temperature 1."""

AS_SERVED: Final[Mapping[str, Any]] = json.loads(
    (SMOLLM2_DEMO_DIR / "generation_config.json").read_text(encoding="utf-8")
)
"""What the server samples with where a request does not say: as the model's card recommends."""

_AT_ONCE: Final = 48


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and how likely it is, as sums of natural log-probabilities over its tokens.

    Attributes:
        prompt: What was asked.
        text: What was answered.
        num_tokens: Of the answer.
        plain: Log-probability under the unsteered model.
        prompted: Under the unsteered model that is told the style and shown one example; None of
            unsteered answers.
    """

    prompt: str
    text: str
    num_tokens: int
    plain: float
    prompted: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What is measured of the answers to some prompts.

    Attributes:
        hits: Share that the style's judge counts.
        perplexity: Of the answers under the unsteered model.
        prompted_perplexity: Under the unsteered model that is told the style and shown one example;
            None of unsteered answers.
        repetition: Mean share of runs of three words that repeat one.
        num_words: Mean number of words.
    """

    hits: float
    perplexity: float
    prompted_perplexity: float | None
    repetition: float
    num_words: float

    @property
    def fluency(self) -> float:
        """The lower of the two perplexities: as the model may speak, or as it is asked to."""
        prompted = self.prompted_perplexity
        return self.perplexity if prompted is None else min(self.perplexity, prompted)

    @classmethod
    def of(cls, concept: Concept, answers: Sequence[Answer]) -> Figures:
        """The figures of answers in one style."""
        count = len(answers)
        tokens = sum(answer.num_tokens for answer in answers)
        prompted = [a.prompted for a in answers if a.prompted is not None]
        return cls(
            hits=round(sum(map(JUDGES[concept.name], (a.text for a in answers))) / count, 3),
            perplexity=_perplexity(sum(a.plain for a in answers), tokens),
            prompted_perplexity=None
            if len(prompted) < count
            else _perplexity(sum(prompted), tokens),
            repetition=round(sum(repetition(a.text) for a in answers) / count, 3),
            num_words=round(sum(len(a.text.split()) for a in answers) / count, 1),
        )


def _perplexity(log_probability: float, num_tokens: int) -> float:
    return round(math.exp(-log_probability / max(num_tokens, 1)), 1)


class Trials:
    """Asks a server many prompts at once."""

    def __init__(self, client: Coxswain, model: str) -> None:
        """Ask `model` of the server that `client` talks to."""
        self._client = client
        self._model = model

    def ask(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int,
        sampling: Mapping[str, Any] = AT_ONE,
        style: Concept | None = None,
        interventions: Sequence[Any] = (),
    ) -> list[Answer]:
        """An answer to each prompt, scored under the unsteered model, plain and told of a style."""

        def one(prompt: str) -> Answer:
            chat = self._client.chat(
                prompt,
                model=self._model,
                interventions=interventions,
                max_tokens=max_tokens,
                seed=1,
                return_token_ids=True,
                **sampling,
            )
            document = chat.model_dump()
            ids = document["choices"][0]["token_ids"]
            prompted = None
            if style is not None:
                told = self._client.tokenize(messages=_shown(style, prompt)).tokens
                prompted = self._score(told, ids)
            plain = self._score(document["prompt_token_ids"], ids)
            return Answer(prompt, chat.text, len(ids), plain, prompted)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(one, prompts))

    def texts(self, prompts: Sequence[str], *, max_tokens: int, seed: int) -> list[str]:
        """Unsteered answers at temperature 1."""

        def one(prompt: str) -> str:
            return self._client.chat(
                prompt, model=self._model, max_tokens=max_tokens, seed=seed, **AT_ONE
            ).text

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(one, prompts))

    def _score(self, prompt: Sequence[int], answer: Sequence[int]) -> float:
        """The log-probability of an answer's tokens after a prompt, unsteered."""
        if not answer:
            return 0.0
        scored = self._client.complete(
            [*prompt, *answer], model=self._model, max_tokens=0, echo=True, logprobs=0
        )
        found: list[float] = scored.model_dump()["choices"][0]["logprobs"]["token_logprobs"]
        return sum(found[len(prompt) :])


def _shown(concept: Concept, prompt: str) -> list[ChatMessage]:
    """A chat in which the style is asked for and shown before the prompt."""
    return [
        {"role": "system", "content": concept.system},
        *as_messages(read_examples(concept.name)[2]),
        {"role": "user", "content": prompt},
    ]
