"""Text of generated tokens, as soon as it is certain, up to a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

_REPLACEMENT: Final = "\ufffd"
_LOOK_BACK: Final = 16
_CONTEXT_TOKENS: Final = 5
_MAX_PENDING_TOKENS: Final = 8  # a character has at most four bytes


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


# Not `tokenizers.decoders.DecodeStream` (0.23): bytes that are no character raise "Invalid prefix"
# with SentencePiece's decoder, and are held back with no end, in quadratic time, with any other.
class Detokenizer:
    """Turns one request's tokens into text, in time linear in their number.

    The pieces joined are the decoding of all tokens, cut before the stop string. No piece ends
    within a character or holds the beginning of a stop string. A character that is still
    incomplete at the very end becomes one U+FFFD.

    A tokenizer may write a token differently at the start of a text (SentencePiece drops a leading
    space), so each token is decoded together with those just before it, of the prompt at first.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        prompt_token_ids: Sequence[int] = (),
        stops: Sequence[str] = (),
        *,
        skipped_ids: frozenset[int] = frozenset(),
        min_tokens: int = 0,
    ) -> None:
        """Begin after the prompt.

        Args:
            decode: Tokens to text.
            prompt_token_ids: Context of the first token.
            stops: Strings that end the text.
            skipped_ids: Special tokens, which have no text.
            min_tokens: Stop strings are looked for from this token on.
        """
        self._decode = decode
        self._skipped_ids = skipped_ids
        context = [token for token in prompt_token_ids[-_LOOK_BACK:] if token not in skipped_ids]
        self._token_ids = context[-_CONTEXT_TOKENS:]
        self._prefix = 0  # decoding starts here
        self._read = len(self._token_ids)  # text before here was given out
        if decode(self._token_ids).endswith(_REPLACEMENT):
            self._prefix = self._read  # a prompt that ends within a character is no context
        self.num_chars = 0
        """Characters of the text so far, those that a stop string may yet take back included."""
        self._stop_strings = StopStrings(stops)
        self._num_tokens = 0
        self._min_tokens = min_tokens

    @property
    def stop_reason(self) -> str | None:
        """The stop string that was found."""
        return self._stop_strings.found

    def add(self, token_id: int) -> str:
        """Take the next token and return the text that became certain; often none."""
        self._num_tokens += 1
        if token_id in self._skipped_ids:
            return ""  # and no context either: after it a text does not begin anew
        self._token_ids.append(token_id)
        text = self._pending()
        if not text.endswith(_REPLACEMENT):
            self._advance(len(self._token_ids))
        elif len(self._token_ids) - self._read > _MAX_PENDING_TOKENS:
            text = self._cut_pending(text)
        else:
            text = ""
        self.num_chars += len(text)
        if self._num_tokens < self._min_tokens:
            return text
        return self._stop_strings.add(text)

    def finish(self) -> str:
        """The rest of the text, when no more tokens come; nothing after a stop string."""
        text = self._pending()
        if text.endswith(_REPLACEMENT):
            text = text.rstrip(_REPLACEMENT) + _REPLACEMENT
        self.num_chars += len(text)
        self._advance(len(self._token_ids))
        return self._stop_strings.add(text) + self._stop_strings.finish()

    def _pending(self) -> str:
        given = self._decode(self._token_ids[self._prefix : self._read])
        return self._decode(self._token_ids[self._prefix :])[len(given) :]

    def _cut_pending(self, text: str) -> str:
        """Give out bytes that are no characters, up to where none can be cut in two."""
        for cut in range(len(self._token_ids) - 3, self._read, -1):
            rest = self._decode(self._token_ids[cut:])
            if text.endswith(rest) and self._decodes_apart(cut, rest):
                self._advance(cut)
                return text[: len(text) - len(rest)]
        return ""

    def _decodes_apart(self, cut: int, rest: str) -> bool:
        whole = self._decode(self._token_ids[self._prefix :])
        return self._decode(self._token_ids[self._prefix : cut]) + rest == whole

    def _advance(self, read: int) -> None:
        self._prefix, self._read = self._read, read
        if self._prefix > _MAX_PENDING_TOKENS * 8:  # forget what is no context any more
            del self._token_ids[: self._prefix]
            self._read -= self._prefix
            self._prefix = 0
