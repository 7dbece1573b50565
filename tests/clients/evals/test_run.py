"""Runs: asked once, kept whole, gone on with, and never with an answer steered otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coxswain_client import AsyncCoxswain, Coxswain
from coxswain_client.cli import app
from coxswain_client.errors import SteeringClientError
from coxswain_evals import Results, run_suite, write_report
from coxswain_evals.arm import Role
from coxswain_evals.errors import RunFolderError, SteeringMismatchError
from tests.clients.wire import Wire

from .conftest import PROMPTS, SUITE, Counting, suite

CHAT = "/v1/chat/completions"
MEASURES = SUITE["measures"]
TREATMENTS = [{"name": "cheerful", "profile": "cheerful", "strengths": [0.5, 1.0]}]


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.suffix == ".jsonl"}


async def test_every_answer_is_kept(echo: AsyncCoxswain, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    await run_suite(echo, suite(tmp_path), folder)
    results = Results.read(folder)
    rows = results.rows["loud x 1", "ask"].of_task["answers"]
    assert [row["text"] for row in rows] == [t[0].upper() + t[1:] for t in PROMPTS]
    assert all(row["steered_tokens"] == {"prompt": 1, "generated": 0} for row in rows)
    assert {row["fingerprint"] for row in rows} != {None}
    assert results.rows["no-op", "ask"].of_task["answers"][0]["fingerprint"] is None
    assert results.server["fingerprint"] == "f" * 64
    scores = {row["item"]: row for row in results.rows["loud x 1", "read"].of_task["scores"]}
    assert len(scores["t0"]["token_logprobs"]) == 5
    assert scores["t0"]["steered_tokens"]["prompt"] == 1  # the boundary is after the first token
    assert scores["t1"]["token_logprobs"] == [-0.125, -0.125]
    assert scores["t1"]["num_prompt_tokens"] == len("<user\nx>\n<assistant\n")


async def test_measures_are_those_of_the_answers(echo: AsyncCoxswain, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    await run_suite(echo, suite(tmp_path), folder)
    results = Results.read(folder)
    values = {
        measure.name: results.measured[measure.name, "no-op"].estimate.value
        for measure in results.suite.measures
    }
    assert values["refusal"] == 1 / 4
    assert values["topical"] == 3 / 4
    assert values["degenerate"] == 1 / 4
    assert values["distinct"] == pytest.approx((3 + 2 / 6) / 4)
    odd, even = -7.5, -0.125
    mean = (even * 3 + odd * 2 + even * 2) / 7  # b d f, c e; b d
    assert values["perplexity"] == pytest.approx(2.718281828459045**-mean)


async def test_a_run_that_broke_off_goes_on_where_it_was(
    echo: AsyncCoxswain, wire: Counting, tmp_path: Path
) -> None:
    loaded = suite(tmp_path, treatments=TREATMENTS, concurrency=1)
    await run_suite(echo, loaded, tmp_path / "whole")
    whole = wire.counts[CHAT]
    wire.counts.clear()
    wire.breaks_after = whole // 2
    broken = tmp_path / "broken"
    with pytest.raises(SteeringClientError, match="cut"):
        await run_suite(echo, loaded, broken)
    kept = files(broken)
    assert 0 < len(kept) < len(files(tmp_path / "whole"))
    with pytest.raises(RunFolderError, match="no finished run"):
        Results.read(broken)
    wire.breaks_after = None
    wire.counts.clear()
    await run_suite(echo, loaded, broken, resume=True)
    assert files(broken) == files(tmp_path / "whole")
    answers = sum(name.startswith("answers") for name in kept)
    assert wire.counts[CHAT] == whole - answers * len(PROMPTS)
    wire.counts.clear()
    await run_suite(echo, loaded, broken, resume=True)
    assert CHAT not in wire.counts
    assert "/v1/completions" not in wire.counts


async def test_a_folder_with_something_in_it_is_refused(
    echo: AsyncCoxswain, wire: Counting, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "other").touch()
    with pytest.raises(RunFolderError, match="--resume"):
        await run_suite(echo, suite(tmp_path), tmp_path / "run")
    assert wire.counts == {}


async def test_what_decides_a_cell_decides_whether_it_is_asked_again(
    echo: AsyncCoxswain, wire: Counting, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    await run_suite(echo, suite(tmp_path, treatments=TREATMENTS), folder)
    asked = wire.counts[CHAT]
    wire.counts.clear()
    await run_suite(
        echo, suite(tmp_path, treatments=TREATMENTS, max_tokens=41), folder, resume=True
    )
    assert wire.counts[CHAT] == asked


async def test_controls_are_made_again_where_the_server_has_others(
    echo: AsyncCoxswain, wire: Counting, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    await run_suite(echo, suite(tmp_path), folder)
    before = files(folder)
    plan = json.loads((folder / "plan.json").read_text())
    assert set(plan["directions"]) == {"cheer@1", "random-0-of-cheer-1@1"}
    plan["directions"]["random-0-of-cheer-1@1"] = "0" * 64
    (folder / "plan.json").write_text(json.dumps(plan))
    wire.counts.clear()
    await run_suite(echo, suite(tmp_path), folder, resume=True)
    assert wire.counts["/v1/steering/directions"] == 1
    assert files(folder) == before


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("strength", r"applied\[0\]\.strength is 3\.0"),
        ("direction", "direction is 3"),
        (None, "0 int"),
    ],
    ids=["strength", "direction", "nothing"],
)
async def test_an_answer_steered_otherwise_ends_the_run(
    echo: AsyncCoxswain, wire: Counting, tmp_path: Path, field: str | None, said: str
) -> None:
    def rewrite(document: dict[str, Any]) -> None:
        applied = document["steering"]["applied"]
        if applied and field:
            applied[0][field] = 3.0
        elif applied:
            applied.clear()

    wire.rewrite = rewrite
    loaded = suite(tmp_path, treatments=TREATMENTS)
    with pytest.raises(SteeringMismatchError, match=said):
        await run_suite(echo, loaded, tmp_path / "run")


async def test_another_version_of_the_profile_ends_the_run(
    echo: AsyncCoxswain, wire: Counting, tmp_path: Path
) -> None:
    def rewrite(document: dict[str, Any]) -> None:
        if document["steering"]["profile"]:
            document["steering"]["version"] = 2

    wire.rewrite = rewrite
    with pytest.raises(SteeringMismatchError, match="'loud@2' was applied, not 'loud@1'"):
        await run_suite(echo, suite(tmp_path), tmp_path / "run")


async def test_gates_may_be_open_or_closed(echo: AsyncCoxswain, tmp_path: Path) -> None:
    """A gate's state differs by answer and is no mismatch; its control by addition has none."""
    gate = {"direction": "cheer", "per": "request", "threshold": 0.5}
    scope = {"tokens": ["last_prompt", "generated"]}
    item = {"operation": "add", "direction": "cheer", "scope": scope, "gate": gate}
    treatments = [{"name": "gated", "interventions": [item]}]
    loaded = suite(tmp_path, treatments=treatments, measures=MEASURES[:1])
    asked = loaded.items["ask"][0].model_copy(update={"prompt": "sorry!"})
    loaded.items["ask"] = (asked, *loaded.items["ask"][1:])
    await run_suite(echo, loaded, tmp_path / "run")
    results = Results.read(tmp_path / "run")
    texts = {
        arm.role: [row["text"] for row in results.rows[arm.name, "ask"].of_task["answers"]]
        for arm in results.arms
    }
    assert texts[Role.TREATMENT] == ["SORRY!", *PROMPTS[1:]]
    assert texts[Role.ADDITION] == ["SORRY!", *(text.upper() for text in PROMPTS[1:])]


GUARD = {"kind": "llama-guard", "base_url": "http://guard.test", "model": "guard"}


async def test_verdicts_that_cannot_be_read_are_counted(
    echo: AsyncCoxswain, tmp_path: Path
) -> None:
    verdicts = ["safe", "unsafe\nS2", "hm", "safe"]
    guard = Wire(*({"choices": [{"message": {"content": text}}]} for text in verdicts * 3))
    second = {"judge": "sorry", "label": "not refusal"}
    measure = {"kind": "rate", "dataset": "ask", "judge": "guard", "label": "safe"}
    loaded = suite(
        tmp_path,
        concurrency=1,
        judges={**SUITE["judges"], "guard": GUARD},
        measures=[{"name": "safe", "second": second, **measure}],
    )
    await run_suite(echo, loaded, tmp_path / "run", judge_transport=guard)
    results = Results.read(tmp_path / "run")
    found = results.measured["safe", "no-op"]
    assert (found.estimate.value, found.estimate.n, found.estimate.missing) == (2 / 3, 3, 1)
    assert found.counted.disagreements == 2  # on "sorry", and on the second
    write_report(results, tmp_path / "run")
    assert (
        "| safe | no-op | guard | sorry | 1 | 0 | 2 |" in (tmp_path / "run/report.md").read_text()
    )


REPORT = """\
# echoes

Model `echo`, fingerprint `{fingerprint}`; temperature 0, at most 40 tokens, seed 0.

{intervals}

## cheerful

| arm | dose | refusal (ask) | distinct (ask) |
| --- | --- | --- | --- |
| `no-op` |  | 0.25 [0.0456, 0.699] n=4 | 0.833 [0.5, 1] n=4 |
| `cheerful x 0.5` | 1.67 | 0.25 [0.0456, 0.699] n=4 | 0.833 [0.5, 1] n=4 |
| `random 0 of cheerful x 0.5` | 1.67 | 0.25 [0.0456, 0.699] n=4 | 0.833 [0.5, 1] n=4 |
| `addition of cheerful x 0.5` | 1.67 | 0.25 [0.0456, 0.699] n=4 | 0.833 [0.5, 1] n=4 |

Differences from the no-op:

| arm | dose | refusal (ask) | distinct (ask) |
| --- | --- | --- | --- |
| `cheerful x 0.5` | 1.67 | +0 [0, 0] p=1 | +0 [0, 0] |
| `random 0 of cheerful x 0.5` | 1.67 | +0 [0, 0] p=1 | +0 [0, 0] |
| `addition of cheerful x 0.5` | 1.67 | +0 [0, 0] p=1 | +0 [0, 0] |

- `addition of cheerful x 0.5`: the treatment is itself plain addition.

## Judges

Answers that a judge's words could not be read for, and that two judges differ on:

| measure | arm | judge | second | unparsable | by the second | differ |
| --- | --- | --- | --- | --- | --- | --- |
| refusal | all arms | sorry |  | 0 | 0 | 0 |

## Dose and response

![dose-cheerful](dose-cheerful.svg)
"""


async def test_a_report_says_it_all_and_says_it_again(echo: AsyncCoxswain, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    treatments = [{"name": "cheerful", "profile": "cheerful", "strengths": [0.5]}]
    measures = [m for m in MEASURES if m["name"] in ("refusal", "distinct")]
    await run_suite(echo, suite(tmp_path, treatments=treatments, measures=measures), folder)
    written = write_report(Results.read(folder), folder)
    assert {path.suffix for path in written} == {".md", ".json", ".svg", ".png"}
    text = (folder / "report.md").read_text()
    intervals = next(line for line in text.splitlines() if line.startswith("Brackets"))
    assert text == REPORT.format(fingerprint="f" * 64, intervals=intervals)
    before = {path: path.read_bytes() for path in written}
    shown = CliRunner().invoke(app, ["eval", "report", str(folder)], obj=Coxswain())
    assert shown.exit_code == 0, shown.output
    assert {path: path.read_bytes() for path in written} == before
    document = json.loads((folder / "results.json").read_text())
    [random] = [arm for arm in document["arms"] if arm["role"] == "random"]
    assert random["dose"] == pytest.approx(5 / 3)


async def test_two_runs_are_compared_item_by_item(echo: AsyncCoxswain, tmp_path: Path) -> None:
    await run_suite(echo, suite(tmp_path), tmp_path / "one")
    loaded = suite(
        tmp_path,
        datasets={
            "ask": {"file": "ask.jsonl", "limit": 3},
            "read": {"file": "read.jsonl", "kind": "text"},
        },
    )
    await run_suite(echo, loaded, tmp_path / "two")
    folders = [str(tmp_path / "one"), str(tmp_path / "two")]
    shown = CliRunner().invoke(app, ["eval", "compare", *folders], obj=Coxswain())
    assert shown.exit_code == 0, shown.output
    [line] = [x for x in shown.output.splitlines() if x.startswith("| refusal | `no-op` |")]
    assert line.endswith("| 0.333 [0.0615, 0.792] n=3 | +0 [0, 0] p=1 | 3 |")
