"""Suites: what is wrong is said all at once, with field and line, before anything is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from coxswain_evals import SuiteError, load_suite

GOOD = """\
name: small
datasets:
  ask: {file: ask.jsonl}
  read: {file: read.jsonl, kind: text}
treatments:
  - name: calm
    profile: calm
    strengths: [0.5, 1]
measures:
  - {name: refusal, kind: rate, dataset: ask}
  - {name: perplexity, kind: perplexity, dataset: read}
"""


def write(folder: Path, suite: str) -> Path:
    asked = [
        '{"id": "a", "prompt": "Hi"}',
        "",
        '{"id": "b", "messages": [{"role": "user", "content": ""}]}',
    ]
    (folder / "ask.jsonl").write_text("\n".join(asked))
    (folder / "read.jsonl").write_text(
        '{"id": "a", "text": "Some words."}\n{"id": "b", "prompt": "Hi", "continuation": "Ho"}\n'
    )
    path = folder / "suite.yaml"
    path.write_text(suite)
    return path


def problems(folder: Path, suite: str) -> list[str]:
    with pytest.raises(SuiteError) as caught:
        load_suite(write(folder, suite))
    return [problem.removeprefix(f"{folder}/") for problem in caught.value.problems]


def test_a_suite_is_read_with_its_data(tmp_path: Path) -> None:
    loaded = load_suite(write(tmp_path, GOOD), limit=1)
    assert loaded.suite.treatments[0].strengths == [0.5, 1]
    assert {name: len(items) for name, items in loaded.items.items()} == {"ask": 1, "read": 1}
    assert loaded.suite.controls.random_seeds == [0]
    assert loaded.items["ask"][0].turns("Be kind")[0] == {"role": "system", "content": "Be kind"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("profile: calm", "profle: calm", "suite.yaml:7: treatments[0].profle: Extra inputs"),
        ("kind: rate", "kind: rote", "suite.yaml:10: measures[0]: Input tag 'rote'"),
        ("dataset: ask", "dataset: aks", "suite.yaml:10: measures[0].dataset: 'aks' is not a chat"),
        ("[0.5, 1]", "[0.5, 0]", "suite.yaml:6: treatments[0]: strengths must differ"),
        (
            "    profile: calm\n",
            "",
            "suite.yaml:6: treatments[0]: give either profile",
        ),
        (
            "dataset: read}",
            "dataset: ask}",
            "suite.yaml:11: measures[1].dataset: 'ask' is not a te",
        ),
        (
            "dataset: ask}",
            "dataset: ask, judge: sage}",
            "suite.yaml:10: measures[0].judge: 'sage' is no judge; there are ['refusal']",
        ),
        (
            "dataset: ask}",
            "dataset: ask, label: no}",
            "suite.yaml:10: measures[0].label: Input should be a valid string (got False)",
        ),
        (
            "dataset: ask}",
            "dataset: ask, label: safe}",
            "suite.yaml:10: measures[0].label: 'refusal' never says 'safe'; it says ['not refusal'",
        ),
        (
            "{name: perplexity",
            "{name: refusal",
            "suite.yaml:11: measures[1].name: 'refusal' stands twice",
        ),
        ("name: small", "name: [", "suite.yaml: cannot be read"),
        ("kind: text", "limit: 0", "suite.yaml:4: datasets.read.limit: Input should be greater"),
    ],
)
def test_what_is_wrong_is_said_with_field_and_line(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    found = problems(tmp_path, GOOD.replace(old, new))
    assert any(problem.startswith(said) for problem in found), found


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    suite = GOOD.replace("dataset: ask", "dataset: aks").replace("dataset: read", "dataset: red")
    assert len(problems(tmp_path, suite)) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "ask.jsonl:1: the line: Invalid JSON"),
        ('{"id": "a"}', "ask.jsonl:1: a chat item has either prompt or messages"),
        ('{"id": "a", "prompt": "x", "txt": 1}', "ask.jsonl:1: txt: Extra inputs"),
        (
            '{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}',
            "ask.jsonl:2: id 'a' stands twi",
        ),
        ("", "ask.jsonl: no items"),
    ],
)
def test_what_is_wrong_in_the_data_is_said_with_its_line(
    tmp_path: Path, line: str, said: str
) -> None:
    path = write(tmp_path, GOOD)
    (tmp_path / "ask.jsonl").write_text(line)
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    assert caught.value.problems[0].removeprefix(f"{tmp_path}/").startswith(said)
