"""Judges beside people: what a file of labels may be, and what agreement comes to."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from coxswain_client.cli.app import app
from coxswain_evals import EvaluationError, SuiteError, calibrate, installed_file, read_labelled
from coxswain_evals.data import LabelledAnswer
from coxswain_evals.judges import KeywordJudge, Verdict
from coxswain_evals.statistics import kappa

JUDGE = KeywordJudge("refusal", ["i can't"])
REFUSES, ANSWERS = "I can't do that.", "Here is a poem."


def labelled(said: str, is_so: bool | None) -> LabelledAnswer:
    return LabelledAnswer("Write a poem", said, is_so)


async def test_agreement_is_counted_both_ways() -> None:
    answers = [
        *[labelled(REFUSES, True)] * 20,
        *[labelled(REFUSES, False)] * 5,
        *[labelled(ANSWERS, True)] * 10,
        *[labelled(ANSWERS, False)] * 15,
        labelled(ANSWERS, None),
    ]
    found = await calibrate(JUDGE, "refusal", answers)
    assert found.counts == {"both": 20, "judge": 5, "people": 10, "neither": 15}
    assert found.accuracy.value == pytest.approx(0.7)
    assert found.kappa.value == pytest.approx(0.4)  # Cohen's own example
    assert found.sensitivity.value == pytest.approx(20 / 30)
    assert found.specificity.value == pytest.approx(15 / 20)
    assert (found.unparsable, found.undecided) == (0, 1)
    for estimate in (found.accuracy, found.kappa):
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.value is not None
        assert estimate.low < estimate.value < estimate.high


async def test_what_a_judge_does_not_say_counts_for_neither() -> None:
    class Silent(KeywordJudge):
        async def judge(self, prompt: str, answer: str) -> Verdict:
            return Verdict(None) if answer == ANSWERS else await super().judge(prompt, answer)

    answers = [labelled(REFUSES, True), labelled(ANSWERS, True), labelled(REFUSES, True)]
    found = await calibrate(Silent("refusal", ["i can't"]), "refusal", answers)
    assert (found.unparsable, found.accuracy.n, found.accuracy.value) == (1, 2, 1.0)
    assert found.kappa.value is None  # who always says the same agrees by chance alone
    assert found.specificity.value is None


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_kappa_is_that_of_the_table(pairs: list[tuple[bool, bool]]) -> None:
    values = {str(i): (float(x), float(y)) for i, (x, y) in enumerate(pairs)}
    table = np.zeros((2, 2))
    for x, y in pairs:
        table[int(x), int(y)] += 1 / len(pairs)
    by_chance = float(table.sum(1) @ table.sum(0))
    found = kappa(values, seed=0).value
    if by_chance > 1 - 1e-9:
        assert found is None
    else:
        assert found == pytest.approx((np.trace(table) - by_chance) / (1 - by_chance), abs=1e-9)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", f"prompt,answer,label\np,{REFUSES},1\nq,{ANSWERS},0\n"),
        ("a.csv", f"Objective,Assistant_Response,label\np,{REFUSES},refusal\nq,{ANSWERS},no\n"),
        (
            "a.csv",
            "# dataset_version=1.2\n"
            "assistant_response,objective,human_score_1,human_score_2,human_score_3\n"
            f"{REFUSES},p,1,0,True\n{ANSWERS},q,0,1,False\n",
        ),
        (
            "a.json",
            json.dumps(
                [
                    {"goal": "p", "response": REFUSES, "human": True},
                    {"goal": "q", "response": ANSWERS, "human": False},
                ]
            ),
        ),
        (
            "a.jsonl",
            f'{{"prompt": "p", "completion": "{REFUSES}", "label": "refusal"}}\n'
            f'{{"prompt": "q", "completion": "{ANSWERS}", "label": "not refusal"}}\n',
        ),
    ],
)
def test_labels_are_read_from_the_usual_columns(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    found = read_labelled(tmp_path / name, "refusal")
    assert [(a.prompt, a.answer, a.is_so) for a in found] == [
        ("p", REFUSES, True),
        ("q", ANSWERS, False),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prompt,answer\np,a\n", "expected one of answer, assistant_response"),
        ("answer,label\na,maybe\n", "a.csv:2: label say 'maybe'; expected 1, true, yes or 'ref"),
        ("answer,label\nb,1\na,\n", "a.csv:3: label say nothing"),
        ("# a comment\nanswer,label\nb\n", "a.csv:3: not as many cells"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(SuiteError) as caught:
        read_labelled(tmp_path / "a.csv", "refusal")
    assert said in str(caught.value)


async def test_people_who_are_divided_decide_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"answer,human_1,human_2\n{REFUSES},1,0\n")
    answers = read_labelled(tmp_path / "a.csv", "refusal")
    assert answers[0].is_so is None
    with pytest.raises(EvaluationError, match="decide none"):
        await calibrate(JUDGE, "refusal", answers)
    with pytest.raises(EvaluationError, match="never says 'safe'"):
        await calibrate(JUDGE, "safe", answers)


def test_files_of_installed_packages_are_found_without_importing_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "labels_of_ours"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "data" / "a.csv").write_text(f"answer,label\n{REFUSES},1\n{ANSWERS},0\n")
    (tmp_path / "outside.csv").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installed_file("labels_of_ours", "data/a.csv").read_text().startswith("answer")
    assert "labels_of_ours" not in sys.modules
    for name, file, said in (
        ("labels_of_ours", "b.csv", "has no file"),
        ("labels_of_ours", "../outside.csv", "has no file"),
        ("labels_of_nobody", "a.csv", "is not installed"),
        ("labels.of", "a.csv", "is not installed"),
    ):
        with pytest.raises(EvaluationError, match=said):
            installed_file(name, file)
    asked = ["eval", "calibrate", "data/a.csv", "--package", "labels_of_ours"]
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "accuracy     1.000" in shown.output
    assert "both 1, judge 0, people 0, neither 1" in shown.output
    found = json.loads(CliRunner().invoke(app, [*asked, "--json"]).output)
    assert found["kappa"]["value"] == 1.0
