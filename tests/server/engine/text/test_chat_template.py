"""Templates of every form and family: rendered as transformers does, and nothing is left out."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from server.engine.errors import RequestRejectedError
from server.engine.text import Tokenizer
from steering.documents import Region

from .templates import CHATML, CUTTING, FAMILIES, GEMMA, PARTS, PHI, QWEN3, R1
from .tokenizers import byte_level

THOUGHT = int(Region.ASSISTANT | Region.THINKING)
ANSWER = int(Region.ASSISTANT | Region.ANSWER)
USER = {"role": "user", "content": "hello there"}


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def letters(text: str) -> str:
    return "".join(text.split())


def expected(
    fast: PreTrainedTokenizerFast, chat: list[dict[str, str]], is_open: bool
) -> list[int] | None:
    """What transformers makes of a chat; None where it refuses it.

    The system turn of a template that knows none is said by the first user.
    """
    given: list[Any] = chat
    if fast.chat_template in (GEMMA, PHI) and [m["role"] for m in chat[:2]] == ["system", "user"]:
        said = f"{chat[0]['content']}\n\n{chat[1]['content']}"
        given = chat = [turn("user", said), *chat[2:]]
    if fast.chat_template == PARTS:
        given = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in chat]
    options = {"continue_final_message": True} if is_open else {"add_generation_prompt": True}
    try:
        return list(fast.apply_chat_template(given, return_dict=False, **options))
    except Exception:  # whatever a template raises
        return None


def random_chat(rng: random.Random) -> list[dict[str, str]]:
    """Turns that mostly alternate, some of them of the system, some with thoughts."""

    def words_of(most: int) -> str:
        """Words that no other turn has."""
        words = [f"w{rng.randrange(10**9)}" for _ in range(rng.randint(1, most))]
        return rng.choice(["", " ", "\n"]) + " ".join(words)

    chat = [turn("system", words_of(2))] if rng.random() < 0.4 else []
    for _ in range(rng.randint(1, 3)):
        chat.append(turn("user", words_of(3) + rng.choice(["", " ", "\n"])))
        if rng.random() < 0.1:
            chat.append(turn("system", words_of(2)))
        said = words_of(2).strip()
        if rng.random() < 0.5:
            said = f"<think>\n{words_of(2).strip()}\n</think>\n\n{said}"
        chat.append(turn("assistant", said))
    return chat if rng.random() < 0.6 else chat[:-1]


@pytest.mark.parametrize("template", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
def test_a_prompt_is_that_of_transformers_and_says_what_the_messages_say(
    template: str, is_open: bool
) -> None:
    fast = byte_level(template)
    tokenizer = Tokenizer(fast, frozenset())
    rng = random.Random(f"{template} {is_open}")
    outcomes = set()
    for _ in range(60):
        chat = random_chat(rng)
        if is_open and chat[-1]["role"] != "assistant":
            chat.append(turn("assistant", "so be it"))
        wanted = expected(fast, chat, is_open)
        text = "" if wanted is None else letters(fast.decode(wanted))
        said = [letters(m["content"].rpartition("</think>")[2]) for m in chat]
        is_complete = wanted is not None and all(part in text for part in said)
        if is_open:
            is_complete = is_complete and text.endswith(letters(chat[-1]["content"]))
        outcomes.add(is_complete)
        options = {"continue_final_message": is_open, "add_generation_prompt": not is_open}
        if is_complete:
            assert list(tokenizer.render_chat(chat, **options).token_ids) == wanted, chat
        else:
            with pytest.raises(RequestRejectedError, match="chat template") as caught:
                tokenizer.render_chat(chat, **options)
            assert str(caught.value.param).startswith("messages")
    if not (is_open and template == CUTTING):  # which cuts off the end that is to be continued
        assert True in outcomes


@pytest.mark.parametrize(
    ("template", "chat", "param"),
    [
        (PHI, [USER, turn("system", "be kind"), USER], "messages[1].content"),
        (FAMILIES["mistral"], [USER, turn("system", "be kind"), USER], "messages[1].content"),
        (FAMILIES["forgetful"], [turn("user", "one"), *[USER] * 2], "messages[0].content"),
        (FAMILIES["cutting"], [turn("user", "hello " * 9)], "messages[0].content"),
        (CHATML.replace("m['content']", "m['content'] | length"), [USER], "messages[0].content"),
        (CHATML.replace("m['content']", "m['text']"), [USER], "messages[0].content"),
    ],
    ids=["system", "second system", "early turn", "rest of a turn", "length", "another field"],
)
def test_what_a_template_leaves_out_is_refused_by_name(
    template: str, chat: list[dict[str, str]], param: str
) -> None:
    with pytest.raises(RequestRejectedError, match="leaves out") as caught:
        Tokenizer(byte_level(template), frozenset()).render_chat(chat)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fault", "blame"),
    [
        ("{{ raise_exception('not so') }}", "refuses these messages: not so"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{{ 1 + m['content'] }}", "TypeError"),
        ("{{ m['content'] | int / 0 }}", "ZeroDivisionError"),
        ("{{ [][5].x }}", "has no element 5"),
        ("{{ 'x'.__class__.mro() }}", "unsafe"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "OverflowError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ m['content'].encode('ascii').decode('utf-32') }}", "UnicodeDecodeError"),
    ],
)
def test_what_goes_wrong_inside_a_template_is_a_refusal_that_blames_it(
    fault: str, blame: str
) -> None:
    tokenizer = Tokenizer(byte_level(CHATML.replace("{{ m['content'] }}", fault)), frozenset())
    with pytest.raises(RequestRejectedError, match="model's chat template") as caught:
        tokenizer.render_chat([USER])
    assert blame in str(caught.value)
    assert caught.value.param == "messages"


@pytest.mark.parametrize("source", ["{% for m in %}", "{{ m | nofilter }}", "{% if x %}", "{{"])
def test_a_template_that_is_no_jinja_is_a_fault_of_the_checkpoint(source: str) -> None:
    with pytest.raises(ValueError, match="no valid Jinja: line 1") as caught:
        Tokenizer(byte_level(source), frozenset())
    assert "\n" not in str(caught.value)


def saved(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
    """A folder with a tokenizer without a template, its settings changed."""
    byte_level(None).save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    change(settings)
    file.write_text(json.dumps(settings))
    return folder


def named(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "template": name + CHATML} for name in names]


def in_config(value: Any) -> Callable[[Path], None]:
    return lambda folder: saved(folder, lambda s: s.update(chat_template=value)) and None


def in_files(**files: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        saved(folder)
        for name, text in files.items():
            file = folder / name.replace("__", "/").replace("_jinja", ".jinja")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)

    return write


def legacy(folder: Path) -> None:
    (saved(folder) / "chat_template.json").write_text(json.dumps({"chat_template": CHATML}))


@pytest.mark.parametrize(
    ("write", "start"),
    [
        (in_config(CHATML), ""),
        (in_config(named("default", "tool_use", "rag")), "default"),
        (in_files(chat_template_jinja=CHATML), ""),
        (
            in_files(
                chat_template_jinja=CHATML,
                additional_chat_templates__tool_use_jinja="tools" + CHATML,
            ),
            "",
        ),
        (in_files(additional_chat_templates__default_jinja="other" + CHATML), "other"),
        (legacy, ""),
    ],
    ids=["text", "list", "file", "folder", "folder alone", "legacy"],
)
def test_a_template_is_found_wherever_transformers_looks(
    tmp_path: Path, write: Callable[[Path], None], start: str
) -> None:
    write(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.chat_template == start + CHATML
    shown = tokenizer.decode(tokenizer.render_chat([USER]).token_ids)
    assert shown.startswith(f"{start}<|im_start|>")


def test_templates_without_a_default_are_named(tmp_path: Path) -> None:
    in_config(named("rag", "tool_use"))(tmp_path)
    with pytest.raises(RequestRejectedError, match="rag, tool_use, and none called 'default'"):
        Tokenizer.load(tmp_path).render_chat([USER])


@pytest.mark.parametrize(
    ("files", "ends"),
    [
        ({}, {"</s>"}),
        ({"generation_config.json": {"eos_token_id": 1}}, {"</s>", 1}),
        ({"generation_config.json": {"eos_token_id": [1, 2]}}, {"</s>", 1, 2}),
        ({"config.json": {"eos_token_id": 3}}, {"</s>", 3}),
        ({"config.json": {"text_config": {"eos_token_id": [3, 4]}}}, {"</s>", 3, 4}),
        (
            {"config.json": {"eos_token_id": 3}, "generation_config.json": {"eos_token_id": [0]}},
            {"</s>", 3, 0},
        ),
        ({"config.json": {"eos_token_id": None}, "generation_config.json": {}}, {"</s>"}),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",  # a set has no fixed order
)
def test_end_tokens_come_from_every_place(
    tmp_path: Path, files: dict[str, Any], ends: set[Any]
) -> None:
    saved(tmp_path)
    for name, document in files.items():
        (tmp_path / name).write_text(json.dumps(document))
    fast = byte_level(None)
    wanted = {fast.convert_tokens_to_ids(e) if isinstance(e, str) else e for e in ends}
    assert Tokenizer.load(tmp_path).end_token_ids == wanted


@pytest.mark.parametrize("value", ["</s>", 1.5, True, [1, "x"]])
def test_an_end_token_that_is_no_id_is_a_fault_of_the_checkpoint(
    tmp_path: Path, value: Any
) -> None:
    (saved(tmp_path) / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(ValueError, match="eos_token_id is"):
        Tokenizer.load(tmp_path)


def test_an_answer_after_a_closed_thought_is_continued_where_the_template_keeps_the_thought() -> (
    None
):
    """And its thought is a thought to steering, whoever wrote the markers around it."""
    chat = [USER, turn("assistant", "<think>\nmats and cats\n</think>\n\nthe cat")]
    options = {"continue_final_message": True, "add_generation_prompt": False}
    for template in (QWEN3, CHATML):
        fast = byte_level(template)
        tokenizer = Tokenizer(fast, frozenset())
        rendered = tokenizer.render_chat(chat, **options)
        assert list(rendered.token_ids) == expected(fast, chat, is_open=True)
        assert rendered.regions is not None
        by_region = {
            code: tokenizer.decode(
                [t for t, r in zip(rendered.token_ids, rendered.regions, strict=True) if r == code]
            )
            for code in (THOUGHT, ANSWER)
        }
        assert by_region[THOUGHT].split() == ["<think>", "mats", "and", "cats", "</think>"]
        assert by_region[ANSWER].strip() == "the cat"
    tokenizer = Tokenizer(byte_level(R1), frozenset())
    with pytest.raises(RequestRejectedError, match="is to be continued") as caught:
        tokenizer.render_chat(chat, **options)
    assert caught.value.param == "messages[1].content"
