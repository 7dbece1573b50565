"""What a cell asks of the server: answers, log-probabilities of texts, and divergences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from coxswain_client.client import AsyncCoxswain

from .arm import check_steering
from .concurrency import map_concurrently
from .data import Item
from .run_folder import Cell, Row
from .suite import Suite


def split_thought(text: str, thinking_end: str) -> tuple[str | None, str]:
    """A text's thought, None where there is none, and its answer.

    A thought that never ends (its opening mark, the end's without the slash, stands first) leaves
    an empty answer.
    """
    before, mark, after = text.partition(thinking_end)
    if mark:
        return f"{before}{mark}", after.strip()
    opening = thinking_end.replace("/", "", 1)
    if opening != thinking_end and text.lstrip().startswith(opening):
        return text, ""
    return None, text.strip()


@dataclass(frozen=True)
class Answering:
    """Asks for answers.

    Attributes:
        client: Client of the server that is evaluated.
        suite: States how answers are asked for.
        model: Name of the model.
    """

    client: AsyncCoxswain
    suite: Suite
    model: str

    async def rows(self, cell: Cell) -> list[Row]:
        """An answer to every prompt of the cell.

        Raises:
            SteeringMismatchError: An answer was not steered as asked.
            SteeringClientError: The server gave no answer.
        """
        return await map_concurrently(self.suite.concurrency, partial(self._row, cell), cell.items)

    async def _row(self, cell: Cell, item: Item) -> Row:
        turns = item.turns(self.suite.datasets[cell.dataset].system)
        answer = await self.client.chat(
            turns, model=self.model, steering=cell.arm.options(), **self._sampling()
        )
        check_steering(cell.arm, answer.steering)
        choice = answer.choices[0]
        thought, judged = split_thought(choice.message.content, self.suite.thinking_end)
        return {
            "item": item.id,
            "messages": turns,
            "text": choice.message.content,
            "thought": thought,
            "answer": judged,
            "judged": "the whole answer" if thought is None else "the answer after the thought",
            "finish_reason": choice.finish_reason,
            "fingerprint": answer.steering.fingerprint,
            "steered_tokens": answer.steering.steered_tokens.model_dump(),
        }

    def _sampling(self) -> dict[str, Any]:
        sampling = {"temperature": self.suite.temperature, "max_tokens": self.suite.max_tokens}
        # Thoughts stay in the text, which is kept whole and cut where the suite says they end.
        options = {**sampling, **self.suite.template, "reasoning_format": "raw"}
        return options if self.suite.temperature == 0 else {**options, "seed": self.suite.seed}


@dataclass(frozen=True)
class Scoring:
    """Asks for the log-probabilities of texts.

    Attributes:
        client: Client of the server that is evaluated.
        suite: States how answers are asked for.
        model: Name of the model.
    """

    client: AsyncCoxswain
    suite: Suite
    model: str

    async def rows(self, cell: Cell) -> list[Row]:
        """Log-probabilities of every text of the cell; raises as `Answering.rows`."""
        return await map_concurrently(self.suite.concurrency, partial(self._row, cell), cell.items)

    async def _row(self, cell: Cell, item: Item) -> Row:
        tokens, start = await self._tokens(item, self.suite.datasets[cell.dataset].system)
        boundary = {"prompt_tokens": start} if cell.arm.expected else {}
        scored = await self.client.complete(
            tokens,
            model=self.model,
            steering=cell.arm.options(**boundary),
            echo=True,
            logprobs=1,
            max_tokens=0,
            temperature=0,
        )
        check_steering(cell.arm, scored.steering)
        logprobs = (scored.choices[0].logprobs or {})["token_logprobs"]
        return {
            "item": item.id,
            "token_logprobs": logprobs[start:],
            "num_prompt_tokens": start,
            "fingerprint": scored.steering.fingerprint,
            "steered_tokens": scored.steering.steered_tokens.model_dump(),
        }

    async def _tokens(self, item: Item, system: str | None) -> tuple[list[int], int]:
        """The token ids of an item, and the index from which on they are scored."""
        if item.text is not None:
            return (await self.client.tokenize(item.text)).tokens, 1
        turns = item.turns(system)
        prompt = (await self.client.tokenize(messages=turns, **self.suite.template)).tokens
        rest = await self.client.tokenize(item.continuation, add_special_tokens=False)
        return [*prompt, *rest.tokens], len(prompt)


@dataclass(frozen=True)
class Divergence:
    """Asks how far an arm's distributions are from the unsteered model's, token by token.

    Attributes:
        client: Client of the server that is evaluated.
        suite: States how answers are asked for.
        unsteered: Text of the unsteered model's answer to each item; what is scored.
    """

    client: AsyncCoxswain
    suite: Suite
    unsteered: Mapping[str, str]

    async def rows(self, cell: Cell) -> list[Row]:
        """Divergences along the unsteered answers; empty answers have none."""
        return await map_concurrently(self.suite.concurrency, partial(self._row, cell), cell.items)

    async def _row(self, cell: Cell, item: Item) -> Row:
        continuation = self.unsteered[item.id]
        if not continuation:
            return {"item": item.id, "kl": [], "fingerprint": None}
        if not cell.arm.expected:
            return {"item": item.id, "kl": [0.0], "fingerprint": None}
        scored = await self.client.analysis.score(
            messages=item.turns(self.suite.datasets[cell.dataset].system),
            continuation=continuation,
            steering=cell.arm.options(),
            **self.suite.template,
        )
        check_steering(cell.arm, scored.steering)
        return {"item": item.id, "kl": scored.kl, "fingerprint": scored.steering.fingerprint}
