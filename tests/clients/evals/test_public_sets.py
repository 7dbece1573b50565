"""Prompts of public sets, in the files they are published as: tiny ones with harmless prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coxswain_evals import SuiteError
from coxswain_evals.data import read_items

BEES = "Write a poem about bees"
TEA = "Describe a cup of tea"

FILES = {
    "advbench.csv": f"goal,target\n{BEES},Sure\n{TEA},Sure\n",
    "jailbreakbench.csv": "Index,Goal,Target,Behavior,Category,Source\n"
    f"0,{BEES},Sure,Bees,Nature,Us\n1,{TEA},Sure,Tea,Food,Us\n",
    "strongreject.csv": f"category,source,forbidden_prompt\nNature,us,{BEES}\nFood,us,{TEA}\n",
    "xstest.csv": f"id,prompt,type,label,note\nv2-1,{BEES},homonyms,safe,\nv2-2,{TEA},x,unsafe,\n",
    "or-bench.csv": f"prompt,category\n{BEES},nature\n{TEA},food\n",
    "catqa.json": "\n".join(
        json.dumps({"Category": "Nature", "Subcategory": "Insects", "Question": text})
        for text in (BEES, TEA)
    ),
    "alpaca.json": json.dumps(
        [{"instruction": text, "input": "", "output": "Done."} for text in (BEES, TEA)]
    ),
    "or-bench.jsonl": "\n".join(
        json.dumps({"prompt": text, "category": "x"}) for text in (BEES, TEA)
    ),
    "own.csv": f"\ufeffid,prompt\nbees,{BEES}\ntea,{TEA}\n",
}


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("name", FILES)
def test_each_format_is_told_by_its_columns(tmp_path: Path, name: str) -> None:
    items = read_items(write(tmp_path, name, FILES[name]), "chat", None)
    assert [item.prompt for item in items] == [BEES, TEA]
    assert len({item.id for item in items}) == 2
    assert len(read_items(tmp_path / name, "chat", 1)) == 1


def test_names_are_the_files_own_where_it_has_them(tmp_path: Path) -> None:
    names = {
        name: [item.id for item in read_items(write(tmp_path, name, FILES[name]), "chat", None)]
        for name in ("jailbreakbench.csv", "xstest.csv", "own.csv", "advbench.csv")
    }
    assert names == {
        "jailbreakbench.csv": ["0", "1"],
        "xstest.csv": ["v2-1", "v2-2"],
        "own.csv": ["bees", "tea"],
        "advbench.csv": ["1", "2"],
    }


def test_contexts_and_inputs_belong_to_the_prompt(tmp_path: Path) -> None:
    columns = "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID"
    rows = [
        f"{BEES},standard,nature,,,bees",
        f'{TEA},contextual,food,context,"A cup, and a pot.",tea',
    ]
    path = write(tmp_path, "harmbench.csv", "\n".join([columns, *rows]))
    bees, tea = read_items(path, "chat", None)
    assert (bees.id, bees.prompt) == ("bees", BEES)
    assert (tea.id, tea.prompt) == ("tea", f"A cup, and a pot.\n\n---\n\n{TEA}")
    [only] = read_items(path, "chat", None, {"FunctionalCategory": ["contextual", "copyright"]})
    assert only.id == "tea"
    alpaca = [{"instruction": "Translate to French", "input": "A cup of tea", "output": ""}]
    [item] = read_items(write(tmp_path, "alpaca.json", json.dumps(alpaca)), "chat", None)
    assert item.prompt == "Translate to French\n\nA cup of tea"


def test_rows_are_picked_by_a_column(tmp_path: Path) -> None:
    path = write(tmp_path, "xstest.csv", FILES["xstest.csv"])
    assert [item.id for item in read_items(path, "chat", None, {"label": "safe"})] == ["v2-1"]


@pytest.mark.parametrize(
    ("name", "text", "kind", "where", "said"),
    [
        ("a.txt", "hello", "chat", {}, "unknown kind of file; expected .jsonl with an item a line"),
        ("a.csv", "a,b\n1,2\n", "chat", {}, "columns are a, b; expected those of a known set"),
        ("a.csv", "goal\n", "chat", {}, "no rows"),
        ("a.csv", "goal,target\nx\n", "chat", {}, "a.csv:2: not as many cells as the header has"),
        ("a.json", "{", "chat", {}, "a.json:1: not JSON"),
        ("a.json", '["x"]', "chat", {}, "item 1 is no object"),
        ("a.json", "[", "chat", {}, "not JSON"),
        ("a.csv", FILES["advbench.csv"], "text", {}, "sets of prompts are chat datasets"),
        ("a.csv", FILES["xstest.csv"], "chat", {"lable": "safe"}, "no column lable"),
        ("a.csv", FILES["xstest.csv"], "chat", {"label": "so so"}, "no row is as where says"),
        ("a.csv", "id,prompt\na,x\na,y\n", "chat", {}, "a.csv:3: 'a' stands twice"),
        ("a.csv", "goal,target\n,Sure\nx,Sure\n", "chat", {}, "a.csv:2: goal is empty"),
        ("a.jsonl", '{"id": "a", "prompt": "x"}', "chat", {"id": "a"}, "only public sets take"),
    ],
)
def test_what_is_wrong_names_the_file_and_what_is_taken(
    tmp_path: Path, name: str, text: str, kind: str, where: dict[str, str], said: str
) -> None:
    with pytest.raises(SuiteError) as caught:
        read_items(write(tmp_path, name, text), kind, None, where)
    assert said in str(caught.value)


def test_a_refusal_names_every_set(tmp_path: Path) -> None:
    with pytest.raises(SuiteError) as caught:
        read_items(write(tmp_path, "a.csv", "a\n1\n"), "chat", None)
    sets = ("AdvBench", "JailbreakBench", "HarmBench", "StrongREJECT", "CATQA", "XSTest")
    for known in (*sets, "OR-Bench", "Alpaca"):
        assert known in str(caught.value)
