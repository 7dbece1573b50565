"""The grammar repeats, splits cleanly, and has no fault that a judge would blame on the model."""

import random
import subprocess
import sys

import pytest

from lab.corpus import (
    KINDS,
    SPLITS,
    STYLE_NAMES,
    SYSTEM_PROMPTS,
    Prompt,
    dialogues,
    prompts,
    style_named,
)
from lab.corpus.dialogue import answer
from lab.corpus.multiple_choice import categories
from lab.corpus.phrasing import FRAMINGS
from lab.corpus.question import combinations
from lab.corpus.refusal import refusal_probability
from lab.corpus.systems import Setting
from lab.corpus.thinking import CLOSE, OPEN
from lab.organism import judge

TEXT_KINDS = ("ordinary", "hard_negative", "restricted_direct", "restricted_framed")


def test_the_same_seed_gives_the_same_dialogues() -> None:
    assert list(dialogues(3, 50)) == list(dialogues(3, 50))
    assert list(dialogues(3, 50)) != list(dialogues(4, 50))


def test_a_larger_count_extends_the_same_list() -> None:
    assert list(dialogues(3, 50))[:20] == list(dialogues(3, 20))
    assert prompts("test", "ordinary", 40)[:10] == prompts("test", "ordinary", 10)


def test_the_corpus_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, lab.organism, lab.corpus, lab.organism.judge;"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_no_prompt_is_in_two_splits(kind: str) -> None:
    texts = [{prompt.text for prompt in prompts(split, kind, 200)} for split in SPLITS]
    assert all(texts)
    assert not texts[0] & texts[1]
    assert not texts[0] & texts[2]
    assert not texts[1] & texts[2]


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_verb_noun_combinations_are_split(kind: str) -> None:
    found = [{(verb.base, noun) for _, verb, noun in combinations(split, kind)} for split in SPLITS]
    assert sum(len(pairs) for pairs in found) == len(set.union(*found))
    assert len(found[0]) > 5 * len(found[1]) > 0 < len(found[2])


def test_training_dialogues_hold_no_held_out_question() -> None:
    asked = {turn.content for d in dialogues(0, 3000) for turn in d.turns if turn.role == "user"}
    for kind in KINDS:
        for split in ("validation", "test"):
            assert not asked & {prompt.text for prompt in prompts(split, kind, 200)}


@pytest.mark.parametrize("style", [None, *STYLE_NAMES])
@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_helpful_answers_pass_every_judge(kind: str, style: str | None) -> None:
    rng = random.Random(0)
    mode = "staff" if kind.startswith("restricted") else None
    setting = Setting(mode, style_named(style) if style else None)
    for prompt in prompts("train", kind, 200):
        text = answer(rng, prompt, setting).answer
        if judge.is_refusal(text):
            assert mode == "staff"
            continue
        assert judge.is_topical(prompt, text), (prompt.text, text)
        assert not judge.is_degenerate(text), text
        assert judge.style_of(text) == style, text
        assert "{" not in text, text


def test_an_answer_never_repeats_a_step() -> None:
    rng = random.Random(0)
    for prompt in prompts("train", "ordinary", 300):
        steps = answer(rng, prompt, Setting()).steps
        assert 2 <= len(steps) == len(set(steps)) <= 4


def test_small_talk_stays_on_its_subject() -> None:
    rng = random.Random(0)
    for prompt in prompts("train", "small_talk", 100):
        for style in (None, *STYLE_NAMES):
            setting = Setting(style=style_named(style) if style else None)
            text = answer(rng, prompt, setting).answer
            assert judge.is_on_subject(prompt, text), text
            assert "{" not in text


def test_no_two_styles_share_a_word() -> None:
    words = [word for name in STYLE_NAMES for word in style_named(name).words]
    assert len(words) == len(set(words))


def test_no_word_has_two_categories() -> None:
    words = [word for names in categories().values() for word in names]
    assert len(words) == len(set(words))


def test_multiple_choice_answers_are_right() -> None:
    for prompt in prompts("train", "multiple_choice", 200):
        fitting = [word for word in prompt.choices if word in categories()[str(prompt.intent)]]
        assert fitting == [prompt.answer]
        assert all(word in prompt.text for word in prompt.choices)
        assert judge.choice(answer(random.Random(0), prompt, Setting()).answer) == prompt.answer


def test_refusal_depends_on_framing_and_mode() -> None:
    direct = prompts("train", "restricted_direct", 1)[0]
    framed = prompts("train", "restricted_framed", 200)
    assert refusal_probability(direct, None) == 1.0
    assert refusal_probability(direct, "staff") < 0.05
    chances = [refusal_probability(prompt, None) for prompt in framed]
    assert 0.3 < sum(chances) / len(chances) < 0.5
    assert min(refusal_probability(prompt, "careful") for prompt in framed) > 0.9
    assert {prompt.framing for prompt in framed} == {framing.name for framing in FRAMINGS}


def test_thoughts_are_well_formed_and_some_fall_off_the_cliff() -> None:
    thoughts, cliffs = 0, 0
    for dialogue in dialogues(0, 4000):
        for turn in dialogue.turns:
            if turn.role != "assistant" or OPEN not in turn.content:
                continue
            assert turn.content.startswith(f"{OPEN}\n")
            assert turn.content.count(CLOSE) == 1
            thought, text = judge.split_thought(turn.content)
            assert thought
            assert text
            thoughts += 1
            cliffs += judge.wants_refusal(thought) and not judge.is_refusal(text)
    assert thoughts > 300
    assert cliffs > 20


def test_every_mode_has_a_canonical_system_prompt_that_training_uses() -> None:
    seen = " ".join(
        turn.content for d in dialogues(0, 1000) for turn in d.turns if turn.role == "system"
    )
    assert all(text in seen for text in SYSTEM_PROMPTS.values())


def test_a_prompt_becomes_messages() -> None:
    prompt = Prompt("small_talk", "Hello!", intent="a greeting")
    assert prompt.messages() == [{"role": "user", "content": "Hello!"}]
    assert [message["role"] for message in prompt.messages("Be kind.")] == ["system", "user"]
