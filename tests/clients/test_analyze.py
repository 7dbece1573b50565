"""`client.analysis` and `coxctl analyze`: what is sent, what is printed, what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from coxswain_client import Coxswain
from coxswain_client.cli import app

from .found_inside import CLIFFS, HEADS, TRACE
from .wire import Wire, events

CHAT = [
    {"role": "user", "content": "How?"},
    {"role": "assistant", "content": "<think>\nHm.\n</think>\nSo."},
]
JOB = {"id": "job-1", "kind": "cliff", "status": "queued", "progress": 0.0, "message": ""}
DONE = {**JOB, "status": "succeeded", "progress": 1.0}


def run(wire: Wire, *arguments: str) -> Result:
    client = Coxswain(transport=wire, max_retries=0)
    return CliRunner().invoke(app, ["analyze", *arguments], obj=client)


@pytest.fixture
def rollouts(tmp_path: Path) -> Path:
    path = tmp_path / "rollouts.jsonl"
    lines = [{"messages": CHAT}, {"messages": [{"role": "user", "content": "Why?"}, CHAT[1]]}]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def test_the_client_sends_only_what_is_given() -> None:
    wire = Wire(TRACE, CLIFFS, HEADS)
    client = Coxswain(transport=wire, max_retries=0)
    trace = client.analysis.trace([{"direction": "refusal"}], prompt="Hi", max_tokens=3)
    cliffs = client.analysis.cliff([CHAT], "probe", trim=2)  # type: ignore[list-item]
    heads = client.analysis.heads(["Hi", CHAT], "probe", method="causal")  # type: ignore[list-item]
    assert wire.bodies == [
        {"readouts": [{"direction": "refusal"}], "prompt": "Hi", "max_tokens": 3},
        {"conversations": [CHAT], "probe": "probe", "trim": 2},
        {"prompts": ["Hi", CHAT], "probe": "probe", "method": "causal"},
    ]
    assert [request.url.path.rsplit("/", 1)[1] for request in wire.requests] == [
        *("trace", "cliff", "heads")
    ]
    assert trace.readouts[2].scores == [1.0, -2.0, 1.0, None]
    assert cliffs.average.cliff == 0.45
    assert heads.selected == [[1, 0]]


def test_a_trace_reads_all_layers(tmp_path: Path) -> None:
    page = tmp_path / "trace.html"
    wire = Wire({"model": {"num_layers": 3}}, TRACE)
    options = ["--direction", "refusal", "--layers", "all", "--site", "resid_post"]
    result = run(wire, "trace", "Hi", *options, "--profile", "calm", "--out", str(page))
    assert result.exit_code == 0, result.output
    body = json.loads(wire.requests[-1].content)
    assert [readout["layer"] for readout in body["readouts"]] == [0, 1, 2]
    assert {readout["site"] for readout in body["readouts"]} == {"resid_post"}
    assert body["steering"] == {"profile": "calm"}
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert "refusal@1 resid_post[2]" in page.read_text()


def test_a_trace_is_printed_or_drawn(tmp_path: Path) -> None:
    chat = tmp_path / "chat.json"
    chat.write_text(json.dumps(CHAT))
    result = run(Wire(TRACE), "trace", "--messages", str(chat), "--direction", "refusal")
    assert json.loads(result.stdout)["readouts"][0]["direction"] == "refusal@1"
    picture = tmp_path / "trace.png"
    run(Wire(TRACE), "trace", "Hi", "--direction", "refusal", "--out", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trace", "--direction", "d"], "give PROMPT or --messages"),
        (["trace", "Hi", "--direction", "d", "--layers", "two"], "expected all, or layers"),
        (["trace", "Hi", "--direction", "d", "--out", "t.pdf"], "expected .html, .png or .svg"),
        (["trace", "Hi", "--direction", "d", "--out", "nowhere/t.png"], "no folder nowhere"),
        (["cliff", "FILE", "--probe", "p", "--out", "c.html"], "expected .png or .svg"),
        (["cliff", "FILE", "--probe", "p", "--chat-template-kwargs", "{"], "is no JSON"),
        (["heads", "FILE", "--probe", "p", "--chat-template-kwargs", "[]"], "expected an object"),
    ],
)
def test_a_wrong_command_is_explained_before_anything_is_sent(
    rollouts: Path, arguments: list[str], message: str
) -> None:
    result = run(Wire(), *(str(rollouts) if a == "FILE" else a for a in arguments))
    assert result.exit_code == 2
    assert message in result.output


def test_a_cliff_prints_numbers_and_draws_curves(rollouts: Path, tmp_path: Path) -> None:
    picture = tmp_path / "cliff.svg"
    wire = Wire(CLIFFS)
    result = run(wire, "cliff", str(rollouts), "--probe", "refusing", "--out", str(picture))
    printed = json.loads(result.stdout)
    assert wire.bodies[0]["curves"] is True
    assert wire.bodies[0]["conversations"][0] == CHAT
    assert printed["average"]["cliff"] == 0.45
    assert all("curve" not in part for part in (*printed["conversations"], printed["average"]))
    assert picture.exists()


@pytest.mark.parametrize("command", ["cliff", "heads"])
def test_chats_are_read_under_the_variables_given(rollouts: Path, command: str) -> None:
    wire = Wire(CLIFFS if command == "cliff" else HEADS)
    asked = ["--chat-template-kwargs", '{"enable_thinking": true}']
    result = run(wire, command, str(rollouts), "--probe", "refusing", *asked)
    assert result.exit_code == 0, result.output
    assert wire.bodies[0]["chat_template_kwargs"] == {"enable_thinking": True}


def test_a_text_is_left_to_the_server_to_refuse(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('"How?"\n')
    wire = Wire(CLIFFS)
    run(wire, "cliff", str(texts), "--probe", "refusing")
    assert wire.bodies[0]["conversations"] == ["How?"]


def test_heads_can_be_saved(rollouts: Path, tmp_path: Path) -> None:
    picture = tmp_path / "heads.png"
    wire = Wire({**HEADS, "profile": "cut@1", "direction": "cut@1"})
    options = ["--percent", "10", "--save", "cut", "--no-fold", "--out", str(picture)]
    result = run(wire, "heads", str(rollouts), "--probe", "refusing", *options)
    assert json.loads(result.stdout)["profile"] == "cut@1"
    assert wire.bodies[0]["profile"] == "cut"
    assert wire.bodies[0]["percent"] == 10
    assert wire.bodies[0]["fold"] is False
    assert picture.exists()


def judged(rollouts: Path, out: Path, result: dict[str, Any], *options: str) -> Result:
    event = {"job": "job-1", "number": 1, "at": "", "status": "succeeded", "progress": 1.0}
    end = events({**event, "message": "done"}, "[DONE]")
    wire = Wire(JOB, end, {**DONE, "result": result})
    return run(wire, "judge", str(rollouts), "--probe", "refusing", "--out", str(out), *options)


def test_the_judge_copies_the_first_lines(rollouts: Path, tmp_path: Path) -> None:
    out = tmp_path / "selected.jsonl"
    result = {**CLIFFS, "ranking": {"cliff": [1, 0], "final": [0, 1]}}
    done = judged(rollouts, out, result, "--fraction", "0.5")
    assert done.exit_code == 0, done.output
    assert out.read_text().splitlines() == [rollouts.read_text().splitlines()[1]]
    summary = json.loads(done.stdout)
    assert (summary["selected"], summary["of"]) == (1, 2)
    assert summary["mean_cliff_selected"] == 0.2
    judged(rollouts, out, result, "--fraction", "1", "--rule", "final")
    assert out.read_text() == rollouts.read_text()


def test_the_probe_is_a_job(rollouts: Path) -> None:
    wire = Wire({**JOB, "kind": "cliff_probe"})
    options = ["--positive", str(rollouts), "--negative", str(rollouts), "--validation", "0.3"]
    result = run(wire, "probe", "refusing", *options)
    assert result.exit_code == 0, result.output
    body = wire.bodies[0]
    assert (body["kind"], body["name"]) == ("cliff_probe", "refusing")
    assert body["data"]["validation"] == 0.3
    assert len(body["data"]["positive"]) == 2
