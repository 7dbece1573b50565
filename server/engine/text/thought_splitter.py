"""Splits the text of an answer into what is thought and what is said."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from server.engine.outputs import SplitText
from steering.documents import Region

from .regions import RegionTracker


class ThoughtSplitter:
    """Splits one answer where its marker tokens stand, as its regions are.

    Text may be final later than its tokens are known: it is kept in mind at which character each
    change falls. The markers that change from one to the other belong to neither; thought, answer
    and these markers together are the whole text. A marker that changes nothing is text.
    """

    def __init__(self, tracker: RegionTracker, marker_chars: Mapping[int, int]) -> None:
        """Begin with the answer's first character.

        Args:
            tracker: Fresh; knows whether the answer begins within a thought.
            marker_chars: Characters of each marker token in the text, none if it is special.
        """
        self.num_thought_tokens = 0
        self._tracker = tracker
        self._marker_chars = marker_chars
        self._changes: deque[tuple[int, int, bool]] = deque()  # start and stop of a marker, after
        self._position = 0
        self._is_thought = tracker.is_thinking

    def add(self, token_id: int, num_chars: int) -> None:
        """Take the next token, with which the text has `num_chars` characters in all."""
        was_thinking = self._tracker.is_thinking
        self.num_thought_tokens += bool(self._tracker.advance(token_id) & Region.THINKING)
        if self._tracker.is_thinking != was_thinking:
            start = num_chars - self._marker_chars[token_id]
            self._changes.append((start, num_chars, self._tracker.is_thinking))

    def split(self, text: str) -> SplitText:
        """Take the next characters that are final, and tell them apart."""
        parts: dict[bool, list[str]] = {True: [], False: []}
        begin, end = self._position, self._position + len(text)
        at = begin
        while at < end:
            start, stop, after = self._changes[0] if self._changes else (end, end, False)
            if start > at:
                parts[self._is_thought].append(text[at - begin : start - begin])
            at = min(max(stop, at), end)
            if self._changes and stop <= end:
                self._changes.popleft()
                self._is_thought = after
        self._position = end
        return SplitText("".join(parts[True]), "".join(parts[False]))
