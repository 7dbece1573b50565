from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from server.engine.text import Detokenizer, Tokenizer

from .tokenizers import byte_level, metaspace

KINDS = pytest.mark.parametrize(
    "fast", [byte_level(), metaspace()], ids=["byte-level", "metaspace"]
)


@cache
def wrap(fast: PreTrainedTokenizerFast) -> Tokenizer:
    return Tokenizer(fast, frozenset())


def stream(
    tokenizer: Tokenizer,
    token_ids: Sequence[int],
    prompt: Sequence[int] = (),
    stops: Sequence[str] = (),
) -> list[str]:
    detokenizer = tokenizer.detokenizer(prompt, stops)
    return [*(detokenizer.add(token) for token in token_ids), detokenizer.finish()]


@KINDS
def test_pieces_join_to_the_text(fast: PreTrainedTokenizerFast) -> None:
    tokenizer = wrap(fast)
    for text in ("the cat sat", "naïve café, 東京 🙂👩‍🚀 ok", "a\n\n  b", "🙂", " leading"):
        token_ids = tokenizer.encode(text, add_special_tokens=False)
        pieces = stream(tokenizer, token_ids)
        assert "".join(pieces) == text
        assert not any("\ufffd" in piece for piece in pieces)


@KINDS
def test_a_continuation_keeps_its_leading_space(fast: PreTrainedTokenizerFast) -> None:
    tokenizer = wrap(fast)
    prompt = tokenizer.encode("the cat", add_special_tokens=False)
    whole = tokenizer.encode("the cat sat on", add_special_tokens=False)
    assert whole[: len(prompt)] == prompt
    assert "".join(stream(tokenizer, whole[len(prompt) :], prompt)) == " sat on"


@pytest.mark.parametrize("seed", range(150))
def test_random_bytes_join_to_the_full_decoding(seed: int) -> None:
    rng = random.Random(seed)
    tokenizer = wrap(byte_level())
    token_ids = [rng.randrange(tokenizer.vocab_size) for _ in range(rng.randrange(1, 60))]
    whole = tokenizer.decode(token_ids, skip_special_tokens=True)
    expected = whole.rstrip("\ufffd") + "\ufffd" * whole.endswith("\ufffd")
    joined = "".join(stream(tokenizer, token_ids))
    assert joined.rstrip("\ufffd") + "\ufffd" * joined.endswith("\ufffd") == expected


@pytest.mark.parametrize("seed", range(50))
def test_random_pieces_join_to_the_full_decoding(seed: int) -> None:
    rng = random.Random(seed)
    tokenizer = wrap(metaspace())
    names = {i: metaspace().convert_ids_to_tokens(i) for i in range(tokenizer.vocab_size)}
    text_ids = [i for i, name in names.items() if not name.startswith("<0x")]
    token_ids: list[int] = []
    for _ in range(40):
        if rng.random() < 0.3:
            token_ids += tokenizer.encode(rng.choice("😀é東"), add_special_tokens=False)[1:]
        else:
            token_ids.append(rng.choice(text_ids))
    whole = tokenizer.decode(token_ids, skip_special_tokens=True)
    assert "".join(stream(tokenizer, token_ids)) == whole


@KINDS
def test_characters_are_never_split(fast: PreTrainedTokenizerFast) -> None:
    tokenizer = wrap(fast)
    token_ids = tokenizer.encode("a🚀b", add_special_tokens=False)
    pieces = stream(tokenizer, token_ids)
    assert [piece for piece in pieces if piece] == ["a", "🚀", "b"]


@KINDS
def test_an_incomplete_character_at_the_end_is_one_replacement(
    fast: PreTrainedTokenizerFast,
) -> None:
    tokenizer = wrap(fast)
    token_ids = tokenizer.encode("ok 🚀", add_special_tokens=False)[:-1]
    pieces = stream(tokenizer, token_ids)
    assert "".join(pieces[:-1]) in ("ok", "ok ")
    assert "".join(pieces) == "ok \ufffd"


@KINDS
def test_special_tokens_are_skipped(fast: PreTrainedTokenizerFast) -> None:
    tokenizer = wrap(fast)
    end = fast.convert_tokens_to_ids("<|im_end|>")
    token_ids = tokenizer.encode("the cat", add_special_tokens=False)
    assert "".join(stream(tokenizer, [token_ids[0], end, *token_ids[1:]])) == "the cat"


@pytest.mark.parametrize("seed", range(40))
def test_text_is_cut_at_the_first_stop_string(seed: int) -> None:
    rng = random.Random(seed)
    tokenizer = wrap(byte_level())
    words = [rng.choice(["the ", "cat ", "sat", "🙂", "\n", "on"]) for _ in range(30)]
    token_ids = tokenizer.encode("".join(words), add_special_tokens=False)
    stops = rng.sample(["cat s", "🙂\n", "on", "\n\n", "tt", "he c"], 2)
    detokenizer = tokenizer.detokenizer((), stops)
    text = ""
    for token in token_ids:
        text += detokenizer.add(token)
        if detokenizer.stop_reason is not None:
            break
    text += detokenizer.finish()
    ends = [(("".join(words)).find(s) + len(s), -len(s)) for s in stops if s in "".join(words)]
    if not ends:
        assert text == "".join(words)
    else:
        end, size = min(ends)
        assert text == "".join(words)[: end + size]
        assert detokenizer.stop_reason is not None


def test_stop_strings_count_from_min_tokens_on() -> None:
    tokenizer = wrap(byte_level())
    token_ids = [tokenizer.encode(c, add_special_tokens=False)[0] for c in "abxcdxef"]
    detokenizer = tokenizer.detokenizer((), ["x"], min_tokens=4)
    assert "".join(detokenizer.add(token) for token in token_ids) == "abxcd"
    assert detokenizer.stop_reason == "x"


def test_the_work_is_linear() -> None:
    tokenizer = wrap(byte_level())
    num_decoded = 0

    def decode(token_ids: Sequence[int]) -> str:
        nonlocal num_decoded
        num_decoded += len(token_ids)
        return tokenizer.decode(token_ids)

    lone_byte = tokenizer.encode("🚀", add_special_tokens=False)[1]
    detokenizer = Detokenizer(decode)
    for index in range(3000):
        detokenizer.add(lone_byte if index % 1000 > 100 else 65)
    assert num_decoded < 3000 * 120


def test_a_saved_tokenizer_is_loaded_from_its_folder(tmp_path: Path) -> None:
    byte_level().save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 5]}')
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.end_token_ids == {1, 5, byte_level().eos_token_id}
    assert tokenizer.chat_template == byte_level().chat_template
