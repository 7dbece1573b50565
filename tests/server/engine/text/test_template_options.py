"""What a chat may ask of a template: which one, its variables, how much to think, tools."""

from __future__ import annotations

import datetime as dt
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from server.engine.errors import RequestRejectedError
from server.engine.request import TemplateOptions
from server.engine.text import Tokenizer
from steering.documents import Region

from .family_templates import (
    COMMAND_R,
    DEEPSEEK_31,
    GPT_OSS,
    GRANITE_33,
    LLAMA_31,
    QWEN_3,
    SMOLLM_3,
    WITH_VARIABLES,
)
from .templates import CHATML, GEMMA, PHI, R1
from .tokenizers import SPECIAL, byte_level

SYSTEM = {"role": "system", "content": "be kind"}
USER = {"role": "user", "content": "hello there"}
SAID = {"role": "assistant", "content": "the cat sat"}
CHAT = [SYSTEM, USER, SAID, {"role": "user", "content": "and the dog"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "of <|im_end|> a place",
        "parameters": {"type": "object", "properties": {"<s>": {"enum": ["</s>"]}}},
    },
}
THOUGHT = int(Region.ASSISTANT | Region.THINKING)


class _Day(dt.datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> _Day:
        return cls(2026, 3, 4, tzinfo=tz)


@pytest.fixture(autouse=True)
def _fixed_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template_utils, "datetime", _Day)


@cache
def fast_of(name: str) -> PreTrainedTokenizerFast:
    return byte_level(WITH_VARIABLES[name])


def wrap(template: Any, **options: Any) -> Tokenizer:
    fast = byte_level(None) if isinstance(template, dict) else byte_level(template)
    if isinstance(template, dict):
        fast = type(fast)(tokenizer_object=fast.backend_tokenizer, bos_token="<s>")
        fast.chat_template = template
    return Tokenizer(fast, frozenset(), **options)


def prompt(
    tokenizer: Tokenizer, options: TemplateOptions, chat: list[dict[str, str]] = CHAT
) -> str:
    return tokenizer.decode(tokenizer.render_chat(chat, options=options).token_ids)


@pytest.mark.parametrize("name", WITH_VARIABLES)
@pytest.mark.parametrize(
    "variables", [{}, {"enable_thinking": False}, {"thinking": False}], ids=str
)
@pytest.mark.parametrize("with_tools", [False, True])
def test_a_familys_prompt_is_that_of_transformers(
    name: str, variables: dict[str, Any], with_tools: bool
) -> None:
    fast = fast_of(name)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    wanted = fast.apply_chat_template(
        CHAT,
        tools=tools if with_tools else None,
        add_generation_prompt=True,
        return_dict=False,
        **variables,
    )
    options = TemplateOptions(variables=variables, tools=tools if with_tools else ())
    rendered = Tokenizer(fast, frozenset()).render_chat(CHAT, options=options)
    assert list(rendered.token_ids) == wanted
    assert rendered.roles is not None
    said = [t for t, r in zip(rendered.token_ids, rendered.roles, strict=True) if r == "assistant"]
    assert fast.decode(said).strip() == SAID["content"]


@pytest.mark.parametrize(
    ("template", "read"),
    [
        (CHATML, set()),
        (LLAMA_31, {"date_string", "tools_in_user_message"}),
        (QWEN_3, {"enable_thinking"}),
        (SMOLLM_3, {"enable_thinking", "xml_tools"}),
        (GRANITE_33, {"thinking"}),
        (GPT_OSS, {"reasoning_effort"}),
        (
            "{{ messages[0].content }}{{ range(2) }}{{ eos_token }}{{ padding }}{{ tokenize }}",
            set(),
        ),
    ],
    ids=["none", "llama", "qwen", "smollm", "granite", "gpt-oss", "what is not a caller's"],
)
def test_a_caller_may_give_what_a_template_reads_and_nobody_else_gives(
    template: str, read: set[str]
) -> None:
    tokenizer = wrap(template)
    for name in ("messages", "tools", "chat_template", "bos_token", "tokenize", "padding"):
        with pytest.raises(RequestRejectedError, match="does not read") as caught:
            tokenizer.render_chat([USER], options=TemplateOptions(variables={name: "x"}))
        assert caught.value.param == f"chat_template_kwargs.{name}"
        for known in read:
            assert known in str(caught.value)
    for name in read:
        applied = tokenizer.render_chat([USER], options=TemplateOptions(variables={name: "x"}))
        assert applied.template.variables == {name: "x"}


def test_a_variable_that_is_not_read_may_ask_for_nothing() -> None:
    options = TemplateOptions(variables={"enable_thinking": False, "date_string": None})
    rendered = wrap(CHATML).render_chat(CHAT, options=options)
    assert rendered.token_ids == wrap(CHATML).render_chat(CHAT).token_ids
    assert rendered.template.variables == {}


def test_a_date_is_todays_or_the_callers() -> None:
    tokenizer = wrap(LLAMA_31)
    assert "Today Date: 04 Mar 2026" in prompt(tokenizer, TemplateOptions())
    options = TemplateOptions(variables={"date_string": "<|im_start|> 1 May"})
    rendered = tokenizer.render_chat(CHAT, options=options)
    assert "Today Date: <|im_start|> 1 May" in tokenizer.decode(rendered.token_ids)
    special = set(byte_level(None).convert_tokens_to_ids(list(SPECIAL)))
    plain = tokenizer.render_chat(CHAT).token_ids
    assert [t for t in rendered.token_ids if t in special] == [t for t in plain if t in special]


@pytest.mark.parametrize(
    ("template", "effort", "given", "ends"),
    [
        (QWEN_3, "none", {}, "assistant\n<think>\n\n</think>\n\n"),
        (QWEN_3, "high", {}, "assistant\n"),
        (QWEN_3, "none", {"enable_thinking": True}, "assistant\n"),
        (SMOLLM_3, "none", {}, "</think>\n"),
        (DEEPSEEK_31, "low", {}, "<think>"),
        (DEEPSEEK_31, "none", {}, "</think>"),
        (GPT_OSS, "high", {}, "assistant"),
        (CHATML, "high", {}, "assistant\n"),
    ],
    ids=["off", "on", "the variable goes first", "off 2", "on 2", "off 3", "read", "not read"],
)
def test_an_effort_reaches_what_a_template_has_for_it(
    template: str, effort: str, given: dict[str, Any], ends: str
) -> None:
    tokenizer = wrap(template)
    options = TemplateOptions(variables=given, reasoning_effort=effort)
    rendered = tokenizer.render_chat(CHAT, options=options)
    text = tokenizer.decode(rendered.token_ids)
    assert text.endswith(ends)
    assert rendered.is_thinking == ends.endswith("<think>")
    assert rendered.template.ignores_effort == (template == CHATML)
    if template == GPT_OSS:
        assert "Reasoning: high" in text
        assert rendered.template.variables == {"reasoning_effort": "high"}


@pytest.mark.parametrize("template", [GEMMA, PHI], ids=["refuses", "drops"])
def test_a_system_turn_without_a_place_goes_into_the_first_user_turn(template: str) -> None:
    tokenizer = wrap(template)
    rendered = tokenizer.render_chat(CHAT)
    merged = [{"role": "user", "content": "be kind\n\nhello there"}, *CHAT[2:]]
    assert rendered.token_ids == tokenizer.render_chat(merged).token_ids
    assert rendered.template.merges_system
    assert not tokenizer.render_chat(merged).template.merges_system
    assert rendered.roles is not None
    for role, content in (("system", "be kind"), ("user", "hello there")):
        own = [t for t, r in zip(rendered.token_ids, rendered.roles, strict=True) if r == role]
        assert tokenizer.decode(own).startswith(content)
    two = tokenizer.render_chat([SYSTEM, {"role": "system", "content": "be brief"}, *CHAT[1:]])
    assert "be kind\n\nbe brief\n\nhello there" in tokenizer.decode(two.token_ids)
    blank = tokenizer.render_chat([{"role": "system", "content": " "}, *CHAT[1:]])
    assert blank.token_ids == tokenizer.render_chat(CHAT[1:]).token_ids
    for chat in ([SYSTEM, SAID], [SYSTEM]):
        with pytest.raises(RequestRejectedError, match="chat template"):
            tokenizer.render_chat(chat)


def test_a_template_is_chosen_by_name() -> None:
    tokenizer = wrap(COMMAND_R)
    assert "results" not in prompt(tokenizer, TemplateOptions())
    asked = TemplateOptions(name="rag", variables={"citation_mode": "fast"})
    assert "<results>fast</results>" in prompt(tokenizer, asked)
    assert tokenizer.render_chat(CHAT, options=asked).template.name == "rag"
    with pytest.raises(RequestRejectedError, match="default, rag, tool_use") as caught:
        prompt(tokenizer, TemplateOptions(name="{{ 7 * 7 }}"))
    assert caught.value.param == "chat_template"
    with pytest.raises(RequestRejectedError, match="it reads citation_mode") as caught:
        prompt(tokenizer, TemplateOptions(name="rag", variables={"mode": "fast"}))
    assert wrap(COMMAND_R, chat_template="rag").chat_template == COMMAND_R["rag"]
    with pytest.raises(ValueError, match="'other'; expected a file of Jinja, or the name of one"):
        wrap(COMMAND_R, chat_template="other")


def test_tools_choose_the_template_for_them_and_are_text() -> None:
    tokenizer = wrap(COMMAND_R)
    options = TemplateOptions(tools=[TOOL])
    rendered = tokenizer.render_chat(CHAT, options=options)
    assert rendered.template.name == "tool_use"
    assert "def weather: of <|im_end|> a place" in tokenizer.decode(rendered.token_ids)
    special = set(byte_level(None).convert_tokens_to_ids(list(SPECIAL)))
    harmless = {"type": "function", "function": {"name": "f", "parameters": {}}}
    for template in (LLAMA_31, QWEN_3, GPT_OSS, GRANITE_33):
        plain = wrap(template)
        marks = [
            [t for t in plain.render_chat(CHAT, options=o).token_ids if t in special]
            for o in (TemplateOptions(tools=[harmless]), options)
        ]
        assert marks[0] == marks[1]
        assert '"<s>"' in prompt(plain, options)


@pytest.mark.parametrize("template", [QWEN_3, GPT_OSS], ids=["reasoning_content", "thinking"])
def test_a_thought_sent_back_goes_to_a_template_that_reads_it(template: str) -> None:
    tokenizer = wrap(template)
    last = {**SAID, "reasoning_content": " cats sit </think> \n"}
    closed = tokenizer.render_chat([USER, last], add_generation_prompt=False)
    text = tokenizer.decode(closed.token_ids)
    assert "cats sit </think>" in text
    open_id, close_id = byte_level(None).convert_tokens_to_ids(["<think>", "</think>"])
    markers = [t for t in closed.token_ids if t in (open_id, close_id)]
    assert markers == ([open_id, close_id] if template == QWEN_3 else []), "a thought is text"
    assert closed.regions is not None
    thought = [t for t, r in zip(closed.token_ids, closed.regions, strict=True) if r == THOUGHT]
    if template == QWEN_3:
        assert "cats sit" in tokenizer.decode(thought)
    earlier = tokenizer.render_chat([USER, last, USER])
    assert "cats" not in tokenizer.decode(earlier.token_ids), "of an earlier turn it is left out"


def test_the_answer_after_a_thought_sent_back_is_continued_or_refused() -> None:
    chat = [USER, {**SAID, "reasoning_content": "cats sit"}]
    options = {"add_generation_prompt": False, "continue_final_message": True}
    tokenizer = wrap(QWEN_3)
    rendered = tokenizer.render_chat(chat, **options)
    assert tokenizer.decode(rendered.token_ids).endswith(
        "<think>\ncats sit\n</think>\n\nthe cat sat"
    )
    assert not rendered.is_thinking
    with pytest.raises(RequestRejectedError, match="is to be continued"):
        wrap(R1).render_chat(chat, **options)


@pytest.mark.parametrize("suffix", [".jinja", ".txt"])
def test_an_operator_gives_a_file_of_jinja(tmp_path: Path, suffix: str) -> None:
    byte_level(None).save_pretrained(tmp_path / "model")
    file = tmp_path / f"mine{suffix}"
    file.write_text("mine" + CHATML)
    tokenizer = Tokenizer.load(tmp_path / "model", chat_template=str(file))
    assert tokenizer.chat_template == "mine" + CHATML
    with pytest.raises(OSError, match="absent"):
        Tokenizer.load(tmp_path / "model", chat_template=str(tmp_path / "absent.jinja"))


def test_thinking_markers_are_found_or_given() -> None:
    assert wrap(CHATML).thinking_markers == ("<think>", "</think>")
    given = wrap(CHATML, thinking_markers=("<s>", "</s>"))
    assert given.thinking_ids == tuple(byte_level(None).convert_tokens_to_ids(["<s>", "</s>"]))
    with pytest.raises(ValueError, match=r"<no> and </s>; expected two tokens"):
        wrap(CHATML, thinking_markers=("<no>", "</s>"))
