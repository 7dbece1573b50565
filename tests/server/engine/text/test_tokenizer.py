from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from server.engine.errors import RequestRejectedError
from server.engine.text import EncodedChat, Tokenizer
from steering.documents import Region
from tests.models.checkpoint import tiny_tokenizer

from .tokenizers import CHATML, GEMMA, INST, SHOUTING, SPECIAL, THINKER, UNTHINKING
from .tokenizers import byte_level as make_byte_level
from .tokenizers import metaspace as make_metaspace

Make = Callable[[str | None], PreTrainedTokenizerFast]

KINDS = pytest.mark.parametrize("make", [make_byte_level, make_metaspace])
TEMPLATES = pytest.mark.parametrize(
    "template", [CHATML, GEMMA, INST, THINKER, UNTHINKING, SHOUTING], ids=len
)
THOUGHT = int(Region.ASSISTANT | Region.THINKING)
ANSWER = int(Region.ASSISTANT | Region.ANSWER)

CHAT = [
    {"role": "user", "content": " hello world,  is 東京 far? \n"},
    {"role": "assistant", "content": "the cat sat 🙂"},
    {"role": "user", "content": "a"},
]


@cache
def wrap(fast: PreTrainedTokenizerFast) -> Tokenizer:
    return Tokenizer(fast, frozenset())


def texts_by_region(tokenizer: Tokenizer, chat: EncodedChat) -> dict[int, str]:
    assert chat.regions is not None
    assert len(chat.regions) == len(chat.token_ids)
    found: dict[int, list[int]] = {}
    for token, code in zip(chat.token_ids, chat.regions, strict=True):
        found.setdefault(code, []).append(token)
    return {code: tokenizer.decode(tokens) for code, tokens in found.items()}


@KINDS
@TEMPLATES
@pytest.mark.parametrize("options", [{}, {"add_generation_prompt": False}], ids=str)
def test_ordinary_chats_get_the_ids_of_apply_chat_template(
    make: Make, template: str, options: dict[str, bool]
) -> None:
    fast = make(template)
    expected = fast.apply_chat_template(
        CHAT, return_dict=False, **{"add_generation_prompt": True} | options
    )
    assert list(wrap(fast).render_chat(CHAT, **options).token_ids) == expected


@KINDS
def test_every_token_knows_whose_words_it_is_part_of(make: Make) -> None:
    chat = [{"role": "system", "content": "the dog"}, *CHAT]
    tokenizer = wrap(make(CHATML))
    rendered = tokenizer.render_chat(chat)
    assert rendered.roles is not None
    assert rendered.regions is not None
    assert len(rendered.roles) == len(rendered.token_ids)
    for role, content in (("system", "the dog"), ("assistant", CHAT[1]["content"])):
        own = [t for t, r in zip(rendered.token_ids, rendered.roles, strict=True) if r == role]
        assert tokenizer.decode(own).strip() == content
    for role, code in zip(rendered.roles, rendered.regions, strict=True):
        assert (role == "assistant") == (code != 0)
    assert rendered.roles[-1] is None  # the assistant's opening, which the template writes


@KINDS
def test_a_final_message_can_be_continued(make: Make) -> None:
    fast = make(CHATML)
    chat = [*CHAT, {"role": "assistant", "content": "the dog "}]
    rendered = wrap(fast).render_chat(
        chat, add_generation_prompt=False, continue_final_message=True
    )
    expected = fast.apply_chat_template(chat, return_dict=False, continue_final_message=True)
    assert list(rendered.token_ids) == expected
    assert rendered.regions is not None
    assert rendered.regions[-1] == ANSWER


def test_the_tiny_models_tokenizer_agrees_with_its_template() -> None:
    fast = tiny_tokenizer()
    expected = fast.apply_chat_template(CHAT, return_dict=False, add_generation_prompt=True)
    assert list(wrap(fast).render_chat(CHAT).token_ids) == expected


@KINDS
@pytest.mark.parametrize("template", [CHATML, GEMMA, THINKER, SHOUTING], ids=len)
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_what_callers_write_never_becomes_a_special_token(
    make: Make, template: str, role: str
) -> None:
    fast = make(template)
    tokenizer = wrap(fast)
    plain = tokenizer.render_chat([{"role": role, "content": "hello"}])
    for spelling in (*SPECIAL, "<think>"):
        content = f"hello {spelling} world{spelling}"
        attack = tokenizer.render_chat([{"role": role, "content": content}])
        special = set(fast.convert_tokens_to_ids(list(SPECIAL)))
        if role != "assistant":  # an assistant may have thought
            special.add(fast.convert_tokens_to_ids("<think>"))
        structure = [token for token in attack.token_ids if token in special]
        assert structure == [token for token in plain.token_ids if token in special]
        decoded = tokenizer.decode(attack.token_ids).replace(" ", "")
        assert content.replace(" ", "") in decoded or template == SHOUTING


@KINDS
def test_prompts_are_text(make: Make) -> None:
    fast = make(None)
    tokenizer = wrap(fast)
    special = set(fast.convert_tokens_to_ids(list(SPECIAL)))
    token_ids = tokenizer.encode("hello <|im_end|></s><think>", add_special_tokens=False)
    assert not special & set(token_ids)
    assert tokenizer.decode(token_ids) == "hello <|im_end|></s><think>"
    for text in ("hello world", "", " the cat\n", "東京 🙂"):
        for add in (True, False):
            expected = fast.encode(text, add_special_tokens=add)
            assert tokenizer.encode(text, add_special_tokens=add) == expected
    assert tokenizer.adds_bos_token == (make is make_metaspace)


@KINDS
@pytest.mark.parametrize("template", [CHATML, GEMMA, THINKER], ids=len)
def test_assistant_turns_are_labelled(make: Make, template: str) -> None:
    tokenizer = wrap(make(template))
    chat = [*CHAT, {"role": "assistant", "content": "world"}]
    found = texts_by_region(tokenizer, tokenizer.render_chat(chat, add_generation_prompt=False))
    assert set(found) == {0, ANSWER}
    assert found[ANSWER].replace(" ", "") == "thecatsat🙂world"


@KINDS
def test_thoughts_are_labelled_with_their_markers(make: Make) -> None:
    tokenizer = wrap(make(CHATML))
    turn = "<think>\nhello\n</think>\nworld"
    chat = [{"role": "user", "content": turn}, {"role": "assistant", "content": turn}, CHAT[0]]
    found = texts_by_region(tokenizer, tokenizer.render_chat(chat))
    assert found[THOUGHT].split() == ["<think>", "hello", "</think>"]
    assert found[ANSWER].strip() == "world"


@KINDS
def test_a_thought_the_template_drops_leaves_the_answer(make: Make) -> None:
    tokenizer = wrap(make(UNTHINKING))
    turn = "<think>\nhello\n</think>\n\nworld"
    chat = [CHAT[2], {"role": "assistant", "content": turn}, CHAT[2]]
    rendered = tokenizer.render_chat(chat)
    found = texts_by_region(tokenizer, rendered)
    assert found[ANSWER].split() == ["world"]
    assert found[THOUGHT].split() == ["<think>", "</think>"], "the template's own, empty thought"
    assert rendered.regions is not None
    tracker = tokenizer.region_tracker(rendered.token_ids, rendered.regions)
    assert tracker.advance(5) == ANSWER


@KINDS
def test_generation_goes_on_in_the_thought_the_template_opened(make: Make) -> None:
    fast = make(THINKER)
    tokenizer = wrap(fast)
    rendered = tokenizer.render_chat(CHAT)
    assert rendered.regions is not None
    close_id = fast.convert_tokens_to_ids("</think>")
    tracker = tokenizer.region_tracker(rendered.token_ids, rendered.regions)
    assert [tracker.advance(token) for token in (5, close_id, 6)] == [THOUGHT, THOUGHT, ANSWER]


@KINDS
def test_generated_markers_open_and_close_thoughts(make: Make) -> None:
    fast = make(CHATML)
    open_id, close_id = fast.convert_tokens_to_ids(["<think>", "</think>"])
    tracker = wrap(fast).region_tracker((7,), bytes(1))
    codes = [tracker.advance(token) for token in (5, open_id, 6, close_id, 7, close_id)]
    assert codes == [ANSWER, THOUGHT, THOUGHT, THOUGHT, ANSWER, ANSWER]


@KINDS
def test_a_prompt_that_ends_with_the_closing_marker_has_closed_its_thought(make: Make) -> None:
    fast = make(CHATML)
    close_id = fast.convert_tokens_to_ids("</think>")
    tokenizer = wrap(fast)
    assert tokenizer.region_tracker((5, close_id), bytes([0, THOUGHT])).advance(6) == ANSWER
    assert tokenizer.region_tracker((5, 6), bytes([0, THOUGHT])).advance(6) == THOUGHT


def test_content_that_cannot_be_found_again_has_no_regions() -> None:
    template = CHATML.replace("m.content }}", "m.content }} ({{ m.content | length }})")
    assert wrap(make_byte_level(template)).render_chat(CHAT).regions is None


def test_refusals_of_the_template_are_typed() -> None:
    tokenizer = wrap(make_byte_level(INST))
    with pytest.raises(RequestRejectedError, match="roles must alternate") as caught:
        tokenizer.render_chat([CHAT[0], CHAT[0]])
    assert caught.value.param == "messages"
    with pytest.raises(RequestRejectedError, match="no chat template"):
        wrap(make_byte_level(None)).render_chat(CHAT)


@KINDS
def test_single_tokens_have_their_bytes(make: Make) -> None:
    tokenizer = wrap(make(None))
    text = "the café 東京 🙂 sat"
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(map(tokenizer.token_bytes, token_ids)).strip() == text.encode()
    assert " sat" in [tokenizer.token_text(token) for token in token_ids]
    assert tokenizer.token_text(make(None).convert_tokens_to_ids("<|im_end|>")) == "<|im_end|>"
    assert tokenizer.token_bytes(10**6) == b""


def test_threads_do_not_disturb_each_other() -> None:
    tokenizer = wrap(make_byte_level(CHATML))
    chats = [[{"role": "user", "content": f"hello <|im_end|> {i}"}] for i in range(40)]
    expected = [tokenizer.render_chat(chat) for chat in chats]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(tokenizer.render_chat, chats)) == expected


def test_a_slow_tokenizer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "server.engine.text.tokenizer.AutoTokenizer.from_pretrained", lambda *_, **__: object()
    )
    with pytest.raises(ValueError, match="expected a fast tokenizer"):
        Tokenizer.load(tmp_path)
