"""Asking every prompt of a cell, and keeping all that came."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from coxswain_client.client import AsyncCoxswain

from .applied import check_applied
from .bounded import each
from .cell import Cell, Row
from .dataset import Item
from .suite import Suite

__all__ = ["Answering", "split_thought"]


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
        client: Of the server.
        suite: How is asked.
        model: Name of the model.
    """

    client: AsyncCoxswain
    suite: Suite
    model: str

    async def rows(self, cell: Cell) -> list[Row]:
        """An answer to every prompt of the cell.

        Raises:
            AppliedMismatchError: One was not steered as asked.
            SteeringClientError: The server gave none.
        """
        return await each(self.suite.concurrency, partial(self._row, cell), cell.items)

    async def _row(self, cell: Cell, item: Item) -> Row:
        turns = item.turns(self.suite.datasets[cell.dataset].system)
        answer = await self.client.chat(
            turns, model=self.model, steering=cell.arm.options(), **self._sampling()
        )
        check_applied(cell.arm, answer.steering)
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
        return sampling if self.suite.temperature == 0 else {**sampling, "seed": self.suite.seed}
