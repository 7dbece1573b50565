"""Guesses a request's next tokens from its own text: what followed the same words before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from server.engine.request import Request

_WORDS: Final = 3
"""Last tokens that must have stood together before; after fewer, most guesses are wrong."""

_FIRST_GUESS: Final = 4
_LONGEST_PAUSE: Final = 32  # steps


@dataclass(slots=True)
class _Lookup:
    """What is known of one request.

    Attributes:
        following: Position after the latest occurrence of each run of `_WORDS` tokens.
        num_seen: Tokens whose runs are in `following`, but for the last run, which is looked up.
        length: Tokens to guess next time.
        pause: Steps to wait after the next failure.
        num_to_wait: Steps left to wait.
    """

    following: dict[tuple[int, ...], int] = field(default_factory=dict)
    num_seen: int = _WORDS - 1
    length: int = _FIRST_GUESS
    pause: int = 1
    num_to_wait: int = 0


class PromptLookup:
    """Drafts tokens for decoding requests, to be verified in the step that runs them.

    A draft is what followed the latest earlier occurrence of the request's last three tokens. All
    of it runs in one step, each token under the steering of its position; as many are kept as the
    sampler would have chosen one by one. A draft that is kept whole doubles the next one; where
    none of it is kept, the request waits before its next, twice as long each time.

    Source: prompt lookup decoding (Saxena 2023); acceptance as in Leviathan et al. 2023,
    arXiv:2211.17192, where the draft is certain and the draw has its own seed, so that the answer
    is the same token for token.

    Args:
        max_tokens: Longest draft, at least 1.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._lookups: dict[str, _Lookup] = {}
        self.num_drafted_tokens = 0
        self.num_accepted_tokens = 0

    def draft(self, request: Request, most: int) -> tuple[int, ...]:
        """Up to `most` tokens that may come next; empty where nothing suggests any.

        Args:
            request: Decoding.
            most: Room in the step.
        """
        # The last token of an answer is sampled and never run.
        most = min(most, request.max_tokens - len(request.output_token_ids) - 1)
        if most <= 0 or not _is_predictable(request):
            return ()
        lookup = self._lookups.setdefault(request.request_id, _Lookup())
        if lookup.num_to_wait > 0:
            lookup.num_to_wait -= 1
            return ()
        start = _follow(lookup, request)
        if start is None:
            return ()
        length = min(lookup.length, most, self._max_tokens)
        drafts = request.token_ids(start, min(start + length, request.num_tokens))
        period = len(drafts)  # what repeats itself up to here may go on to
        return tuple(drafts[index % period] for index in range(length))

    def learn(self, request: Request, num_drafted: int, num_accepted: int) -> None:
        """Note how many tokens of the request's last draft were kept."""
        lookup = self._lookups[request.request_id]
        self.num_drafted_tokens += num_drafted
        self.num_accepted_tokens += num_accepted
        if num_accepted == 0:
            lookup.length = max(lookup.length // 2, 1)
            lookup.num_to_wait = lookup.pause
            lookup.pause = min(2 * lookup.pause, _LONGEST_PAUSE)
            return
        lookup.pause = 1
        lookup.length = min(2 * num_accepted, self._max_tokens)

    def forget(self, request: Request) -> None:
        """Drop what is known of a request that ended."""
        self._lookups.pop(request.request_id, None)


def _is_predictable(request: Request) -> bool:
    """Whether every row of a draft is as it would be alone.

    Penalties count the tokens before, and regions are labelled as tokens are sampled.
    """
    plan = request.spec.plan
    return (
        bool(request.output_token_ids)
        and not request.is_latching
        and not request.spec.sampling.has_penalties
        and not (plan is not None and plan.uses_regions)
    )


def _follow(lookup: _Lookup, request: Request) -> int | None:
    """Position after the latest earlier occurrence of the request's last tokens."""
    num_tokens = request.num_tokens
    if num_tokens < _WORDS:
        return None
    first = lookup.num_seen - _WORDS + 1
    tokens = request.token_ids(first, num_tokens)
    for stop in range(lookup.num_seen + 1, num_tokens):  # the last run is not its own precedent
        run = tuple(tokens[stop - _WORDS - first : stop - first])
        lookup.following[run] = stop
    lookup.num_seen = max(lookup.num_seen, num_tokens - 1)
    return lookup.following.get(tuple(tokens[-_WORDS:]))
