"""Stop strings in text that arrives piece by piece."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopStrings"]


class StopStrings:
    """Lets text through up to a stop string, and nothing that may yet become part of one.

    Of several stop strings the one completed first wins, and of those completed by the same
    character the longest; so the result does not depend on how the text is cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.found: str | None = None
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def add(self, text: str) -> str:
        """The text that is final after this piece; nothing any more once a stop was found."""
        if self.found is not None:
            return ""
        text = self._held + text
        matches = [(text.find(stop) + len(stop), stop) for stop in self._stops if stop in text]
        if matches:
            end, self.found = min(matches, key=lambda match: (match[0], -len(match[1])))
            self._held = ""
            return text[: end - len(self.found)]
        num_held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held]

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper beginning of `stop` with which `text` ends."""
    longest = min(len(stop) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
