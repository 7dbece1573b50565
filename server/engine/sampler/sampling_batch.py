"""The sampling parameters of the requests whose logits are sampled, as tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from .logit_edits import LogitEdits
from .sampled_row import SampledRow


@dataclass(frozen=True, eq=False)
class SamplingBatch:
    """Parameters of S rows of logits; immutable, built once a step.

    Attributes:
        num_rows: Number of rows, S.
        edited_rows: Rows whose logits are changed first.
        edits: The changes; their row i is `edited_rows[i]`. None where there are none.
        random_rows: Rows with a temperature: R of them. The others are greedy.
        temperatures: [R] float32.
        top_ks: [R] int64; the vocabulary's size or more means all.
        top_ps: [R] float32.
        min_ps: [R] float32.
        uniforms: [R] float64 in (0, 1): the only randomness.
        max_top_k: Largest of `top_ks` among the filtered rows.
        filtered: Indices into `random_rows` with top_k or top_p.
        has_min_p: Whether any of `min_ps` is above 0.
        num_logprobs: Per row the top log-probabilities wanted, or None for no log-probabilities.
    """

    num_rows: int
    edited_rows: tuple[int, ...]
    edits: LogitEdits | None
    random_rows: tuple[int, ...]
    temperatures: Tensor
    top_ks: Tensor
    top_ps: Tensor
    min_ps: Tensor
    uniforms: Tensor
    max_top_k: int
    filtered: tuple[int, ...]
    has_min_p: bool
    num_logprobs: tuple[int | None, ...]

    @property
    def logprob_rows(self) -> tuple[int, ...]:
        """Indices of the rows that return log-probabilities, ascending."""
        return tuple(row for row, count in enumerate(self.num_logprobs) if count is not None)

    @property
    def max_num_logprobs(self) -> int:
        """Most top log-probabilities any row wants."""
        return max(count or 0 for count in self.num_logprobs)

    @property
    def edited_random(self) -> list[int]:
        """Indices into `random_rows` of the rows that are edited as well."""
        return _places_of(self.random_rows, self.edited_rows)

    @property
    def random_edited(self) -> list[int]:
        """Indices into `edited_rows` of the rows that are random as well, in the same order."""
        return _places_of(self.edited_rows, self.random_rows)

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[SampledRow],
        vocab_size: int,
        end_token_ids: frozenset[int],
        device: torch.device,
    ) -> Self:
        """Gather the parameters of the rows of logits, in this order."""
        sampling = [row.request.spec.sampling for row in rows]
        edited_rows = tuple(i for i, row in enumerate(rows) if LogitEdits.are_needed(row))
        edited = [rows[i] for i in edited_rows]
        random_rows = tuple(i for i, params in enumerate(sampling) if not params.is_greedy)
        random = [rows[i] for i in random_rows]
        params = [sampling[i] for i in random_rows]
        top_ks = [p.top_k if 0 < p.top_k < vocab_size else vocab_size for p in params]
        filtered = tuple(i for i, p in enumerate(params) if top_ks[i] < vocab_size or p.top_p < 1.0)
        columns = [[p.temperature, p.top_p, p.min_p] for p in params]
        floats = torch.tensor(columns, dtype=torch.float32).reshape(-1, 3).to(device)
        return cls(
            num_rows=len(rows),
            edited_rows=edited_rows,
            edits=LogitEdits.for_rows(edited, end_token_ids, device) if edited else None,
            random_rows=random_rows,
            temperatures=floats[:, 0],
            top_ks=torch.tensor(top_ks, dtype=torch.int64, device=device),
            top_ps=floats[:, 1],
            min_ps=floats[:, 2],
            uniforms=torch.tensor([_uniform(r) for r in random], dtype=torch.float64).to(device),
            max_top_k=max((top_ks[i] for i in filtered), default=vocab_size),
            filtered=filtered,
            has_min_p=any(p.min_p > 0.0 for p in params),
            num_logprobs=tuple(params.logprobs for params in sampling),
        )


def uniform(seed: int, choice_index: int, output_index: int) -> float:
    """A number in (0, 1) that depends on nothing but its arguments; 52 random bits.

    The counter makes a choice the same in any batch, and again after preemption.
    """
    counter = b"%d,%d,%d" % (seed, choice_index, output_index)
    bits = int.from_bytes(hashlib.blake2b(counter, digest_size=8).digest(), "big") >> 12
    return (bits + 0.5) * 2.0**-52


def _places_of(rows: Sequence[int], others: Sequence[int]) -> list[int]:
    """Indices of those rows that are among the others."""
    known = frozenset(others)
    return [index for index, row in enumerate(rows) if row in known]


def _uniform(row: SampledRow) -> float:
    request = row.request
    return uniform(request.seed, request.spec.choice_index, row.output_index)
