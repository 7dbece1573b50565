"""Which tokens a sequence has had, and how often each was generated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["TokenCounts"]


class TokenCounts:
    """Distinct tokens of one sequence with their counts: extended as it grows, never made anew.

    Args:
        prompt_token_ids: Tokens that are there from the start; each counts 0.
    """

    def __init__(self, prompt_token_ids: Sequence[int] = ()) -> None:
        self._ids = np.unique(np.array(prompt_token_ids, dtype=np.int64))
        self._counts = np.zeros(len(self._ids), dtype=np.int64)
        self._places = {token_id: place for place, token_id in enumerate(self._ids.tolist())}
        self._num_seen = 0

    def follow(self, output_token_ids: Sequence[int]) -> None:
        """Count what has been generated since the last call.

        Args:
            output_token_ids: All of it; what was counted before is not looked at again.
        """
        for token_id in output_token_ids[self._num_seen :]:
            place = self._places.setdefault(token_id, len(self._places))
            if place == len(self._ids):
                self._grow()
            self._ids[place] = token_id
            self._counts[place] += 1
        self._num_seen = len(output_token_ids)

    @property
    def ids(self) -> NDArray[np.int64]:
        """The distinct tokens, [N]."""
        return self._ids[: len(self._places)]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each of them was generated, [N]."""
        return self._counts[: len(self._places)]

    def _grow(self) -> None:
        room = np.zeros(max(len(self._ids), 64), dtype=np.int64)
        self._ids = np.concatenate([self._ids, room])
        self._counts = np.concatenate([self._counts, room])
