"""Labels the tokens of an assistant's turns with regions, and those of a chat with roles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Self

from steering.documents import Region

from .chat_renderer import TurnSpan

_THINKING: Final = int(Region.ASSISTANT | Region.THINKING)
_ANSWER: Final = int(Region.ASSISTANT | Region.ANSWER)


class RegionTracker:
    """Follows one assistant turn token by token; both thinking markers count as thinking."""

    def __init__(
        self, open_id: int | None, close_id: int | None, *, is_thinking: bool = False
    ) -> None:
        """Begin a turn, perhaps within a thought; models without thinking have no marker ids."""
        self.is_thinking = is_thinking
        self._open_id = open_id
        self._close_id = close_id

    @classmethod
    def after_prompt(
        cls,
        prompt_token_ids: Sequence[int],
        prompt_regions: bytes,
        open_id: int | None,
        close_id: int | None,
    ) -> Self:
        """Begin where a prompt ends, which may be within a thought."""
        tracker = cls(open_id, close_id)
        if prompt_regions and prompt_regions[-1] & Region.THINKING:
            tracker.is_thinking = prompt_token_ids[-1] != close_id
        return tracker

    def advance(self, token_id: int) -> int:
        """Region bits of the turn's next token."""
        if token_id == self._open_id:
            self.is_thinking = True
        code = _THINKING if self.is_thinking else _ANSWER
        if token_id == self._close_id:
            self.is_thinking = False
        return code


def label_regions(
    token_ids: Sequence[int],
    offsets: Iterable[tuple[int, int]],
    turns: Sequence[TurnSpan],
    open_id: int | None,
    close_id: int | None,
) -> bytes:
    """Region bits of each token of a rendered chat.

    Labelled are the contents of assistants' turns, without the marks the template puts around
    them, and after the last message a thought the template itself opens.

    Args:
        token_ids: Token ids of the rendered text.
        offsets: Characters [start, stop) of each token.
        turns: Where the messages' contents are, in order.
        open_id: Token that opens a thought, or None.
        close_id: Token that closes it, or None.
    """
    opening_start = turns[-1].stop if turns else 0
    turn_of_tracker: TurnSpan | None = None
    tracker = RegionTracker(open_id, close_id)
    has_begun = False  # the answer, in the template's own opening
    regions = bytearray()
    assistant_turns = [turn for turn in turns if turn.is_assistant]
    for token_id, (start, stop) in zip(token_ids, offsets, strict=True):
        while assistant_turns and assistant_turns[0].stop <= start:
            del assistant_turns[0]
        is_in_turn = bool(assistant_turns) and max(stop, start + 1) > assistant_turns[0].start
        is_opening = start >= opening_start and not is_in_turn
        if is_in_turn and turn_of_tracker is not assistant_turns[0]:
            turn_of_tracker, tracker = assistant_turns[0], RegionTracker(open_id, close_id)
        if is_opening and token_id == open_id:
            has_begun, tracker = True, RegionTracker(open_id, close_id)
        is_labelled = is_in_turn or (is_opening and has_begun)
        regions.append(tracker.advance(token_id) if is_labelled else Region.NONE)
    return bytes(regions)


def label_roles(
    offsets: Iterable[tuple[int, int]], turns: Sequence[TurnSpan]
) -> tuple[str | None, ...]:
    """Role of the message that each token of a chat is part of; None for the template's own.

    Args:
        offsets: Characters [start, stop) of each token, in order.
        turns: Where the messages' contents are, in order.
    """
    left = list(turns)
    roles: list[str | None] = []
    for start, stop in offsets:
        while left and left[0].stop <= start:
            del left[0]
        is_in_turn = bool(left) and max(stop, start + 1) > left[0].start
        roles.append(left[0].role if is_in_turn else None)
    return tuple(roles)
