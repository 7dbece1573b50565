"""Scoring given texts under an arm's steering: log-probabilities, and divergence from no steering.

For steering, `prompt_tokens` says where a scored text's prompt ends: a text on its own is generated
from its second token on, a continuation from its first. So a profile that acts on generated tokens
acts on what it is scored on, as it would have when writing it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from coxswain_client.client import AsyncCoxswain

from .applied import check_applied
from .bounded import each
from .cell import Cell, Row
from .dataset import Item
from .suite import Suite

__all__ = ["Divergence", "Scoring"]


@dataclass(frozen=True)
class Scoring:
    """Asks for the log-probabilities of texts.

    Attributes:
        client: Of the server.
        suite: How is asked.
        model: Name of the model.
    """

    client: AsyncCoxswain
    suite: Suite
    model: str

    async def rows(self, cell: Cell) -> list[Row]:
        """Log-probabilities of every text of the cell; raises as `Answering.rows`."""
        return await each(self.suite.concurrency, partial(self._row, cell), cell.items)

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
        check_applied(cell.arm, scored.steering)
        logprobs = (scored.choices[0].logprobs or {})["token_logprobs"]
        return {
            "item": item.id,
            "token_logprobs": logprobs[start:],
            "num_prompt_tokens": start,
            "fingerprint": scored.steering.fingerprint,
            "steered_tokens": scored.steering.steered_tokens.model_dump(),
        }

    async def _tokens(self, item: Item, system: str | None) -> tuple[list[int], int]:
        """Token ids, and from which on they are scored."""
        if item.text is not None:
            return (await self.client.tokenize(item.text)).tokens, 1
        prompt = (await self.client.tokenize(messages=item.turns(system))).tokens
        rest = await self.client.tokenize(item.continuation, add_special_tokens=False)
        return [*prompt, *rest.tokens], len(prompt)


@dataclass(frozen=True)
class Divergence:
    """Asks how far an arm's distributions are from the unsteered model's, token by token.

    Attributes:
        client: Of the server.
        suite: How is asked.
        unsteered: Text of the unsteered model's answer to each item; what is scored.
    """

    client: AsyncCoxswain
    suite: Suite
    unsteered: Mapping[str, str]

    async def rows(self, cell: Cell) -> list[Row]:
        """Divergences along the unsteered answers; empty answers have none."""
        return await each(self.suite.concurrency, partial(self._row, cell), cell.items)

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
        )
        check_applied(cell.arm, scored.steering)
        return {"item": item.id, "kl": scored.kl, "fingerprint": scored.steering.fingerprint}
