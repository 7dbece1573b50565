"""A row of logits, and which token of which answer is chosen from it."""

from __future__ import annotations

from typing import NamedTuple

from server.engine.request import Request


class SampledRow(NamedTuple):
    """The token of a request that one row of logits decides.

    Attributes:
        request: The request, with its tokens known so far.
        num_drafted: Guessed tokens between the last known one and this one. Where there are any,
            nothing of the request depends on which tokens they are.
    """

    request: Request
    num_drafted: int = 0

    @property
    def output_index(self) -> int:
        """Index of the token in its answer."""
        return len(self.request.output_token_ids) + self.num_drafted
