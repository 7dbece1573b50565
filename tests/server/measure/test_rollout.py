"""Rollouts hold the very tokens a model that thinks has written, cut before the answer."""

from __future__ import annotations

import math

import pytest

from server.engine.errors import PromptTooLongError, RequestRejectedError
from server.engine.text import Tokenizer
from server.measure.examples.example import Example
from server.measure.rollout import Rollout, read_ending, read_rollout
from steering.documents import Region
from steering.errors import InvalidFieldError
from tests.models.checkpoint import tiny_tokenizer
from tests.server.engine.text.tokenizers import CHATML, THINKER, byte_level

USER = {"role": "user", "content": "the cat"}
TURN = "<think>\nhello world, the dog sat\n</think>\n\nthe answer"


def wrap(template: str = CHATML) -> Tokenizer:
    return Tokenizer(byte_level(template), frozenset())


def example(content: str = TURN) -> Example:
    return Example.parse([USER, {"role": "assistant", "content": content}], "c[0]")


def parts(tokenizer: Tokenizer, rollout: Rollout) -> tuple[str, str, str]:
    span, ids = rollout.thought, rollout.token_ids
    return (
        tokenizer.decode(ids[: span.start]),
        tokenizer.decode(ids[span.start : span.stop]),
        tokenizer.decode(ids[span.stop : span.end]),
    )


def test_the_answer_is_left_out_and_nothing_else() -> None:
    tokenizer = wrap()
    rollout = read_rollout(tokenizer, example(), 400)
    before, thought, end = parts(tokenizer, rollout)
    assert before.endswith("<|im_start|>assistant\n<think>")
    assert thought == "\nhello world, the dog sat\n"
    assert end == "</think>\n\n"
    assert rollout.thought.end == len(rollout.token_ids)


def test_the_tokens_are_those_of_the_turn_as_a_chat() -> None:
    tokenizer = wrap()
    head = TURN.removesuffix("the answer")
    chat = tokenizer.render_chat(
        [USER, {"role": "assistant", "content": head}],
        add_generation_prompt=False,
        continue_final_message=True,
    )
    rollout = read_rollout(tokenizer, example(), 400)
    assert rollout.token_ids == chat.token_ids
    assert rollout.regions == chat.regions
    assert rollout.num_prompt_tokens == len(tokenizer.render_chat([USER]).token_ids)


@pytest.mark.parametrize("turn", [TURN, TURN.removeprefix("<think>\n")], ids=["marked", "open"])
def test_a_template_that_opens_the_thought_opens_it_once(turn: str) -> None:
    """Such a template would drop the thought from a message."""
    tokenizer = wrap(THINKER)
    rollout = read_rollout(tokenizer, example(turn), 400)
    text = tokenizer.decode(rollout.token_ids)
    assert text.endswith("assistant\n<think>\nhello world, the dog sat\n</think>\n\n")
    assert text.count("<think>") == 1
    assert rollout.regions is not None
    thinking = [bool(code & Region.THINKING) for code in rollout.regions]
    assert all(thinking[rollout.thought.start : rollout.thought.stop])


@pytest.mark.parametrize("portion", [0.0, 0.3, 0.8, 1.0])
def test_a_thought_can_be_cut_short(portion: float) -> None:
    tokenizer = wrap()
    whole, cut = (read_rollout(tokenizer, example(), 400, portion=p) for p in (1.0, portion))
    start = whole.thought.start
    kept = cut.token_ids[start : cut.thought.stop]
    assert kept == whole.token_ids[start : start + len(kept)]
    assert len(kept) == math.ceil(portion * whole.thought.num_tokens)
    is_cut = len(kept) < whole.thought.num_tokens
    assert parts(tokenizer, cut)[2] == ("\n" if is_cut else "") + "</think>\n\n"


@pytest.mark.parametrize(
    "item",
    [
        "the cat",
        [USER],
        [USER, {"role": "assistant", "content": "no thought"}],
        [USER, {"role": "assistant", "content": "<think> without an end"}],
    ],
    ids=["text", "question", "answer", "open"],
)
def test_what_is_no_rollout_is_named(item: object) -> None:
    with pytest.raises(InvalidFieldError, match=r"c\[7\] does not end with") as caught:
        read_rollout(wrap(), Example.parse(item, "c[7]"), 400)
    assert caught.value.param == "c[7]"


@pytest.mark.parametrize("portion", [-0.1, 1.1])
def test_a_portion_outside_its_range_is_refused(portion: float) -> None:
    with pytest.raises(InvalidFieldError, match="thinking_portion"):
        read_rollout(wrap(), example(), 400, portion=portion)


def test_a_rollout_longer_than_the_context_is_refused() -> None:
    with pytest.raises(PromptTooLongError, match=r"c\[0\] has"):
        read_rollout(wrap(), example(), 20)


def test_a_model_that_does_not_think_is_refused() -> None:
    tokenizer = Tokenizer(tiny_tokenizer(), frozenset())
    with pytest.raises(RequestRejectedError, match="expected a model that thinks"):
        read_rollout(tokenizer, example(), 400)


def test_an_ending_is_a_prompt_or_a_rollout() -> None:
    tokenizer = wrap()
    question = Example.parse([USER], "p[0]")
    chat = tokenizer.render_chat([USER]).token_ids
    assert read_ending(tokenizer, question, 400) == chat
    assert read_ending(tokenizer, Example.parse("the cat", "p[0]"), 400) == chat
    assert (
        read_ending(tokenizer, example(), 400) == read_rollout(tokenizer, example(), 400).token_ids
    )
    bare = Tokenizer(byte_level(None), frozenset())
    text = Example.parse("the cat", "p[0]")
    assert read_ending(bare, text, 400) == tuple(bare.encode("the cat"))


def test_a_rollout_follows_the_prompt_that_it_was_generated_from() -> None:
    asks = CHATML.replace("{% for m", "{% if enable_thinking %}think{% endif %}{% for m", 1)
    tokenizer = wrap(asks)
    variables = {"enable_thinking": True}
    for example_ in (example(), Example.parse([USER], "p[0]")):
        ids = read_ending(tokenizer, example_, 400, variables)
        assert tokenizer.decode(ids).startswith("think<|im_start|>")
        assert tokenizer.decode(read_ending(tokenizer, example_, 400)).startswith("<|im_start|>")
    with pytest.raises(RequestRejectedError, match="does not read"):
        read_rollout(tokenizer, example(), 400, variables={"thinks": True})
