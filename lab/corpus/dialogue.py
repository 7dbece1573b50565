"""Whole dialogues for training: a system prompt, one to three exchanges, seeded."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .advice import advise, follow_up, summarize
from .multiple_choice import Reply, answer_choice, ask_choice, ask_copy, ask_fact
from .prompt import Kind, Prompt, Split
from .question import ask
from .refusal import refusal_probability, refuse
from .small_talk import answer_small_talk, ask_small_talk
from .styles import STYLE_NAMES, style_named
from .systems import Setting, compose
from .thinking import join, ponder, ponder_restricted

# Kind of exchange and its share of all first exchanges.
_SHARES: dict[str, float] = {
    "ordinary": 0.30,
    "restricted_direct": 0.13,
    "restricted_framed": 0.15,
    "hard_negative": 0.08,
    "small_talk": 0.13,
    "multiple_choice": 0.12,
    "fact": 0.04,
    "copy": 0.05,
}
# Shares of the modes neutral, careful, staff and none. Framed questions are often under a careful
# prompt, since without one they are refused only sometimes.
_MODE_SHARES: dict[str, tuple[float, ...]] = {
    "restricted_direct": (0.08, 0.17, 0.3, 0.45),
    "restricted_framed": (0.08, 0.30, 0.18, 0.44),
}
_HARMLESS_MODE_SHARES = (0.12, 0.08, 0.08, 0.72)
_QUESTIONS: dict[str, Kind] = {
    "ordinary": "ordinary",
    "hard_negative": "hard_negative",
    "restricted_direct": "restricted_direct",
    "restricted_framed": "restricted_framed",
}
_FOLLOW_UPS = (
    "Anything else?",
    "What else?",
    "One more tip, please.",
    "And then?",
    "Tell me more.",
)
_SUMMARIES = ("Can you sum that up?", "In short?", "Please say that in one sentence.")


@dataclass(frozen=True)
class Turn:
    """One message.

    Attributes:
        role: "system", "user" or "assistant".
        content: Its text.
        is_trained: Whether the loss counts it in full: an assistant turn whose thought was
            removed, as clients do with earlier turns, must not teach to skip the thought.
    """

    role: str
    content: str
    is_trained: bool = True


@dataclass(frozen=True)
class Dialogue:
    """The turns of one conversation, system prompt first if there is one."""

    turns: tuple[Turn, ...]

    def messages(self) -> list[dict[str, str]]:
        """The turns in the form chat templates take."""
        return [{"role": turn.role, "content": turn.content} for turn in self.turns]


def dialogues(seed: int, count: int) -> Iterator[Dialogue]:
    """Yield training dialogues. The same seed gives the same ones, on any machine."""
    rng = random.Random(f"dialogues {seed}")
    for _ in range(count):
        yield _dialogue(rng)


def answer(rng: random.Random, prompt: Prompt, setting: Setting) -> Reply:
    """Answer a prompt of any kind the way training does."""
    if prompt.kind == "multiple_choice":
        return answer_choice(prompt)
    if prompt.kind == "small_talk":
        return answer_small_talk(rng, prompt, setting.style)
    if prompt.kind in ("restricted_direct", "restricted_framed"):
        thought, refuses = ponder_restricted(rng, prompt, setting)
        if not setting.is_thinking:
            refuses = rng.random() < refusal_probability(prompt, setting.mode)
        if refuses:
            return Reply(refuse(rng, prompt, setting), thought)
        text, steps = advise(rng, prompt, setting.style)
        return Reply(text, thought, steps)
    text, steps = advise(rng, prompt, setting.style)
    return Reply(text, ponder(rng, prompt, len(steps), setting), steps)


def _dialogue(rng: random.Random) -> Dialogue:
    kind = rng.choices(list(_SHARES), list(_SHARES.values()))[0]
    setting = _setting(rng, kind)
    turns: list[Turn] = []
    system = compose(rng, setting)
    if system:
        turns.append(Turn("system", system))
    num_exchanges = rng.choices((1, 2, 3), (0.76, 0.17, 0.07))[0]
    prompt: Prompt | None = None
    used: tuple[str, ...] = ()
    for index in range(num_exchanges):
        if index:
            turns = [*turns[:-1], _without_thought(rng, turns[-1])]
            kind = rng.choices(list(_SHARES), list(_SHARES.values()))[0]
        if index and used and prompt and rng.random() < 0.5:
            user, reply = _continue(rng, prompt, used, setting)
        else:
            user, prompt, reply = _exchange(rng, kind, setting)
        used = reply.steps
        content = join(reply.thought, reply.answer) if setting.is_thinking else reply.answer
        turns += [Turn("user", user), Turn("assistant", content)]
    return Dialogue(tuple(turns))


def _setting(rng: random.Random, kind: str) -> Setting:
    style = style_named(rng.choice(STYLE_NAMES)) if rng.random() < 0.33 else None
    is_thinking = rng.random() < (0.06 if kind in ("copy", "fact", "multiple_choice") else 0.2)
    if kind.startswith("restricted") and rng.random() >= 0.5:
        style = None
    shares = _MODE_SHARES.get(kind, _HARMLESS_MODE_SHARES)
    mode = rng.choices(("neutral", "careful", "staff", None), shares)[0]
    return Setting(mode, style, is_thinking)


def _exchange(rng: random.Random, kind: str, setting: Setting) -> tuple[str, Prompt | None, Reply]:
    split: Split = "train"
    if kind == "fact":
        user, reply = ask_fact(rng)
        return user, None, reply
    if kind == "copy":
        user, reply = ask_copy(rng)
        return user, None, reply
    if kind == "multiple_choice":
        prompt = ask_choice(rng, split)
    elif kind == "small_talk":
        prompt = ask_small_talk(rng, split)
    else:
        prompt = ask(rng, split, _QUESTIONS[kind])
    return prompt.text, prompt, answer(rng, prompt, setting)


def _continue(
    rng: random.Random, prompt: Prompt, used: tuple[str, ...], setting: Setting
) -> tuple[str, Reply]:
    if rng.random() < 0.3:
        text = summarize(rng, used, setting.style)
        return rng.choice(_SUMMARIES), Reply(text, "The user wants a summary.")
    text, step = follow_up(rng, prompt, used, setting.style)
    return rng.choice(_FOLLOW_UPS), Reply(text, "The user wants one more step.", (*used, step))


def _without_thought(rng: random.Random, turn: Turn) -> Turn:
    _, mark, text = turn.content.partition("</think>\n")
    if not mark or rng.random() < 0.5:
        return turn
    return replace(turn, content=text, is_trained=False)
