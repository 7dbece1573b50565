"""Thought and answer: where the marker tokens stand, whatever the text is held back for."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerFast

from server.engine.text import Tokenizer
from tests.models.checkpoint import tiny_tokenizer

from .tokenizers import byte_level, metaspace

Make = Callable[[str | None], PreTrainedTokenizerFast]
KINDS = pytest.mark.parametrize("make", [byte_level, metaspace])
OPEN, CLOSE = "<think>", "</think>"


def split_all(
    tokenizer: Tokenizer, token_ids: list[int], stops: list[str], *, is_thinking: bool
) -> tuple[str, str, str, int]:
    """Text, thought, answer and number of tokens of thoughts, as the engine puts them together."""
    splitter = tokenizer.thought_splitter(is_thinking=is_thinking)
    assert splitter is not None
    detokenizer = tokenizer.detokenizer((), stops)
    text, thoughts, answers = "", "", ""
    for index, token_id in enumerate(token_ids):
        piece = detokenizer.add(token_id)
        splitter.add(token_id, detokenizer.num_chars)
        if index == len(token_ids) - 1 or detokenizer.stop_reason is not None:
            piece += detokenizer.finish()
        split = splitter.split(piece)
        text, thoughts, answers = text + piece, thoughts + split.thought, answers + split.answer
        if detokenizer.stop_reason is not None:
            break
    return text, thoughts, answers, splitter.num_thought_tokens


def by_token(tokenizer: Tokenizer, token_ids: list[int], is_thinking: bool) -> tuple[str, str, int]:
    """Thought, answer and number of tokens of thoughts, token by token from their bytes."""
    opening, closing = tokenizer.thinking_ids or (-1, -1)
    parts, count = {True: b"", False: b""}, 0
    for token_id in token_ids:
        is_change = token_id == (closing if is_thinking else opening)
        count += is_thinking or is_change
        if is_change:
            is_thinking = not is_thinking
        else:
            parts[is_thinking] += tokenizer.token_bytes(token_id)
    return parts[True].decode(), parts[False].decode(), count


@KINDS
def test_thought_and_answer_are_those_of_the_tokens(make: Make) -> None:
    tokenizer = Tokenizer(make(None), frozenset())
    markers = list(tokenizer.thinking_ids or ())
    words = [
        tokenizer.encode(word, add_special_tokens=False)
        for word in ("hello", " the cat", "\u6771\U0001f642", "\n\n", "</think>")
    ]
    rng = random.Random(5)
    for _ in range(300):
        ids: list[int] = []
        for _ in range(rng.randint(1, 9)):
            ids += [rng.choice(markers)] if rng.random() < 0.3 else rng.choice(words)
        is_thinking = rng.random() < 0.3
        stops = rng.choice([[], ["never"], ["\n\nx", "</think>y"]])  # which hold text back
        _, thought, answer, count = split_all(tokenizer, ids, stops, is_thinking=is_thinking)
        wanted = by_token(tokenizer, ids, is_thinking)
        assert (thought.replace(" ", ""), answer.replace(" ", ""), count) == (
            wanted[0].replace(" ", ""),
            wanted[1].replace(" ", ""),
            wanted[2],
        )


@KINDS
@pytest.mark.parametrize(
    ("parts", "is_thinking", "stops", "thought", "answer"),
    [
        ([OPEN, "a b", CLOSE, "\n\nc"], False, [], "a b", "\n\nc"),
        (["a b", CLOSE, "c"], True, [], "a b", "c"),
        (["a b"], True, [], "a b", ""),
        (["a b"], False, [], "", "a b"),
        (["x", OPEN, "a", CLOSE, "y", OPEN, "b", CLOSE, "z"], False, [], "ab", "xyz"),
        ([OPEN, "a", OPEN, "b", CLOSE, "c"], False, [], f"a{OPEN}b", "c"),
        (["a", CLOSE, "b"], False, [], "", f"a{CLOSE}b"),
        ([OPEN, "a b", CLOSE, "c"], False, [CLOSE], "a b", ""),
        ([OPEN, "a b", CLOSE, "c"], False, ["b"], "a ", ""),
        ([OPEN, "a b", CLOSE, "c d"], False, ["d"], "a b", "c "),
        ([OPEN, "a b", CLOSE, "c d"], False, [f"b{CLOSE}c d e"], "a b", "c d"),
        ([OPEN, "a b", CLOSE, "c d"], False, ["/think>"], "a b", ""),
        ([OPEN, "a", CLOSE], False, [], "a", ""),
        ([OPEN], False, [], "", ""),
    ],
    ids=[
        "whole", "opened by the prompt", "cut", "no thought", "twice", "a second opening",
        "nothing to close", "stop at the marker", "stop in the thought", "stop in the answer",
        "held over the marker", "stop from within the marker", "nothing after", "opening alone",
    ],
)  # fmt: skip
def test_what_is_thought_and_what_is_said(
    make: Make, parts: list[str], is_thinking: bool, stops: list[str], thought: str, answer: str
) -> None:
    fast = make(None)
    tokenizer = Tokenizer(fast, frozenset())
    ids: list[int] = []
    for part in parts:
        marker = fast.convert_tokens_to_ids(part) if part in (OPEN, CLOSE) else None
        ids += [marker] if marker is not None else tokenizer.encode(part, add_special_tokens=False)
    _, found, said, _ = split_all(tokenizer, ids, stops, is_thinking=is_thinking)
    assert (found.replace(" ", ""), said.replace(" ", "")) == (
        thought.replace(" ", ""),
        answer.replace(" ", ""),
    )


def test_a_marker_without_text_splits_all_the_same() -> None:
    fast = byte_level(None)
    tokenizer = Tokenizer(fast, frozenset(), thinking_markers=("<|im_start|>", "<|im_end|>"))
    opening, closing = fast.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    ids = [opening, *tokenizer.encode("hello"), closing, *tokenizer.encode("the cat")]
    found = split_all(tokenizer, ids, [], is_thinking=False)
    assert found == ("hellothe cat", "hello", "the cat", 2 + len(tokenizer.encode("hello")))


def test_a_model_without_markers_has_nothing_to_split() -> None:
    bare = byte_level(None)
    tokenizer = Tokenizer(bare, frozenset())
    assert tokenizer.thought_splitter(is_thinking=False) is not None
    assert Tokenizer(tiny_tokenizer(), frozenset()).thought_splitter(is_thinking=False) is None
