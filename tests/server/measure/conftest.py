"""The embedded model, thinking: rollouts that refuse and that comply."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab.corpus import STAFF, THINKING, Kind, Split, prompts
from lab.organism import judge
from server.engine.async_engine import AsyncEngine
from server.measure.instrument import Instrument
from tests.embedded_engine import start_embedded


@dataclass(frozen=True)
class Thoughts:
    """Chats that end with a thought and an answer, by what the answer does."""

    refused: list[list[dict[str, str]]]
    complied: list[list[dict[str, str]]]


@pytest.fixture(scope="package")
def model() -> Iterator[AsyncEngine]:
    engine = start_embedded()
    yield engine
    engine.close()


@pytest.fixture(scope="package")
def direct(model: AsyncEngine) -> Thoughts:
    return asyncio.run(think(model, "restricted_direct", "train", 24))


@pytest.fixture(scope="package")
def staff(model: AsyncEngine) -> Thoughts:
    return asyncio.run(think(model, "restricted_direct", "train", 24, system=f"{STAFF} {THINKING}"))


@pytest.fixture(scope="package")
def ordinary(model: AsyncEngine) -> Thoughts:
    return asyncio.run(think(model, "ordinary", "train", 24))


@pytest.fixture(scope="package")
def framed(model: AsyncEngine) -> Thoughts:
    return asyncio.run(think(model, "restricted_framed", "validation", 60))


@pytest.fixture(scope="package")
def probe_data(direct: Thoughts, staff: Thoughts, ordinary: Thoughts) -> dict[str, Any]:
    """Refusing against complying, with restricted topics on both sides."""
    return {"positive": direct.refused, "negative": [*staff.complied, *ordinary.complied]}


async def think(
    engine: AsyncEngine, kind: Kind, split: Split, count: int, *, system: str = THINKING
) -> Thoughts:
    chats = [prompt.messages(system) for prompt in prompts(split, kind, count)]
    ids = [engine.tokenizer.render_chat(chat).token_ids for chat in chats]
    texts = await Instrument(engine).answers(ids, max_tokens=96)
    found = Thoughts([], [])
    for chat, text in zip(chats, texts, strict=True):
        refuses = judge.is_refusal(judge.split_thought(text)[1])
        side = found.refused if refuses else found.complied
        side.append([*chat, {"role": "assistant", "content": text}])
    return found
