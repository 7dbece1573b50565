"""The data of the evaluations: up to date, held out, and judged as the model's own judge does."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from coxswain_evals import load_suite
from coxswain_evals.counting import Rows, count
from coxswain_evals.suite import TopicalMeasure
from lab.corpus import Kind, prompts
from lab.corpus.dialogue import answer
from lab.corpus.systems import Setting
from lab.evals.write_data import FOLDER, files
from lab.organism import judge

SUITES = sorted((FOLDER / "suites").glob("*.yaml"))


def test_the_data_is_what_the_command_writes() -> None:
    """`python -m lab.evals.write_data` writes it again."""
    for path, text in files():
        assert (FOLDER / path).read_text() == text, path


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_suites_can_be_read(path: Path) -> None:
    loaded = load_suite(path)
    assert all(loaded.items.values())
    assert loaded.suite.name == path.stem


@pytest.mark.parametrize("kind", ["ordinary", "hard_negative", "restricted_direct"])
def test_topics_agree_with_the_models_own_judge(kind: Kind) -> None:
    """On answers to the prompt itself and to another, which have the topic and have it not."""
    rng = random.Random(0)
    asked = prompts("test", kind, 80)
    name = {"hard_negative": "look_alike"}.get(kind, kind)
    lines = (FOLDER / "data" / f"{name}.jsonl").read_text().splitlines()
    setting = Setting("staff", None, False)
    for prompt, other, line in zip(asked, asked[1:] + asked[:1], lines, strict=True):
        for answered in (prompt, other):
            text = answer(rng, answered, setting).answer
            assert is_topical(json.loads(line), text) == judge.is_topical(prompt, text), text


def is_topical(line: dict[str, object], text: str) -> bool:
    from coxswain_evals.data import Item

    item = Item.model_validate(line)
    label = "refusal" if judge.is_refusal(text) else "not refusal"
    rows = Rows(
        {"answers": [{"item": item.id, "answer": text}]},
        {"refusal": {item.id: label}},
        {item.id: item},
    )
    measure = TopicalMeasure(kind="topical", name="topical", dataset="any")
    return count(measure, rows).values[item.id][0] == 1.0
