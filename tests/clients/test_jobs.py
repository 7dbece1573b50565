"""Jobs by the client and by `coxctl`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from coxswain_client import (
    APIConnectionError,
    AsyncCoxswain,
    ConflictError,
    Coxswain,
    JobEvent,
    NotFoundError,
    UnprocessableError,
)
from coxswain_client.cli import app
from tests.server.api.server_process import ServerProcess

from .wire import Wire, events

JOB: dict[str, Any] = {
    "id": "job-1",
    "kind": "fit",
    "name": "cheer",
    "status": "succeeded",
    "progress": 1.0,
    "message": "succeeded",
    "result": {"direction": "cheer@1"},
    "request": {"name": "cheer"},
}
FAILED = {**JOB, "status": "failed", "result": None, "error": {"message": "too few"}}


def event(number: int, status: str = "running") -> dict[str, Any]:
    progress = number / 10
    times = {"at": "2030-01-01T00:00:00Z", "job": "job-1"}
    return {**times, "number": number, "status": status, "progress": progress, "message": "m"}


def run(wire: Wire, *arguments: str) -> Result:
    client = Coxswain(transport=wire, max_retries=0)
    return CliRunner().invoke(app, list(arguments), obj=client)


def test_waiting_goes_on_after_the_last_event_when_the_stream_breaks() -> None:
    wire = Wire(
        events(event(1), event(2), breaks=True),
        events(event(3)),  # ends without [DONE]
        events(event(4, "succeeded"), "[DONE]"),
        JOB,
    )
    seen: list[JobEvent] = []
    with Coxswain(transport=wire, max_retries=0) as client:
        job = client.jobs.wait("job-1", seen.append)
    assert job.has_succeeded
    assert [e.number for e in seen] == [1, 2, 3, 4]
    headers = [request.headers.get("last-event-id") for request in wire.requests]
    assert headers == [None, "2", "3", None]


async def test_waiting_ends_where_the_server_is_away() -> None:
    wire = Wire(events(event(1), breaks=True), httpx.ConnectError("refused"))
    async with AsyncCoxswain(transport=wire, max_retries=0) as client:
        with pytest.raises(APIConnectionError):
            await client.jobs.wait("job-1")


def test_waiting_does_not_try_for_ever() -> None:
    wire = Wire(*[events(breaks=True) for _ in range(9)])
    with Coxswain(transport=wire, max_retries=0) as client, pytest.raises(APIConnectionError):
        client.jobs.wait("job-1")
    assert len(wire.requests) == 5


def test_a_fit_sends_what_the_files_hold(tmp_path: Path) -> None:
    positive, negative = tmp_path / "p.jsonl", tmp_path / "n.csv"
    positive.write_text('"Hooray!"\n{"messages": [{"role": "user", "content": "Hi"}]}\n')
    negative.write_text("text\nOh dear.\n")
    wire = Wire({**JOB, "status": "queued"})
    options = [
        *("--method", "gaussian_transport", "--positive", str(positive)),
        *("--negative", str(negative), "--system-prompt", "Be glad.", "--token", "-2"),
        *("--layers", "3,4", "--option", "rank=2", "--option", "note=a=b", "--seed", "7"),
        *("--option", "centred=true", "--requires", "restricted", "--validation", "0.25"),
    ]
    result = run(wire, "fit", "cheer", *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["status"] == "queued"
    assert wire.bodies[0] == {
        "kind": "fit",
        "name": "cheer",
        "method": "gaussian_transport",
        "layers": [3, 4],
        "data": {
            "positive": ["Hooray!", [{"role": "user", "content": "Hi"}]],
            "negative": ["Oh dear."],
            "system_prompt": "Be glad.",
            "token": -2,
            "validation": 0.25,
        },
        "options": {"rank": 2, "note": "a=b", "centred": True},
        "seed": 7,
        "requires": ["restricted"],
    }


def test_a_fit_of_pairs_leaves_out_what_is_not_given(tmp_path: Path) -> None:
    pairs = tmp_path / "p.csv"
    pairs.write_text("positive,negative\na,b\n")
    wire = Wire(JOB)
    assert run(wire, "fit", "cheer", "--pairs", str(pairs), "--layers", "select").exit_code == 0
    assert wire.bodies[0] == {
        "kind": "fit",
        "name": "cheer",
        "method": "mean_difference",
        "layers": "select",
        "data": {"pairs": [{"positive": "a", "negative": "b"}]},
    }


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("3", [3]),
        ("all", {"from": 0, "to": 1}),
        ("40-62.5%", {"from": 0.4, "to": 0.625}),
        ("select:2,3,4", {"select": [2, 3, 4]}),
        ("select:all", {"select": {"from": 0, "to": 1}}),
    ],
)
def test_layers_of_a_fit(tmp_path: Path, text: str, layers: Any) -> None:
    pairs = tmp_path / "p.csv"
    pairs.write_text("positive,negative\na,b\n")
    wire = Wire(JOB)
    assert run(wire, "fit", "cheer", "--pairs", str(pairs), "--layers", text).exit_code == 0
    assert wire.bodies[0]["layers"] == layers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --positive and --negative, or --pairs"),
        (["--positive", "FILE"], "give --positive and --negative, or --pairs"),
        (["--pairs", "FILE", "--negative", "FILE"], "give --positive and --negative, or --pairs"),
        (["--positive", "FILE", "--negative", "BAD"], "bad.jsonl:2: not JSON"),
        (["--positive", "FILE", "--negative", "FILE", "--layers", "x"], "--layers"),
        (["--positive", "FILE", "--negative", "FILE", "--layers", "1-3"], "40-60%"),
        (["--positive", "FILE", "--negative", "FILE", "--option", "x"], "KEY=VALUE"),
        (["--positive", "nowhere.jsonl"], "does not exist"),
    ],
    ids=["nothing", "one side", "too much", "bad line", "layers", "range", "option", "no file"],
)
def test_a_wrong_fit_is_not_sent(tmp_path: Path, arguments: list[str], message: str) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text('"a"\n')
    bad.write_text('"a"\nb\n')
    wire = Wire(JOB)
    files = {"FILE": str(good), "BAD": str(bad)}
    result = run(wire, "fit", "cheer", *(files.get(a, a) for a in arguments))
    assert result.exit_code != 0
    assert message in result.output
    assert wire.requests == []


ENDS: dict[str, tuple[dict[str, Any], int, str]] = {
    "a direction": (JOB, 0, "cheer@1\n"),
    "another result": ({**JOB, "result": {"total": 3}}, 0, '{\n  "total": 3\n}\n'),
    "a failure": (FAILED, 1, ""),
}


@pytest.mark.parametrize("end", ENDS)
def test_watching_shows_progress_and_what_was_made(end: str) -> None:
    ended, status, printed = ENDS[end]
    result = run(Wire(events(event(1), "[DONE]"), ended), "jobs", "watch", "job-1")
    assert (result.exit_code, result.stdout) == (status, printed)
    failure = "" if status == 0 else "Error: job-1 failed: too few\n"
    assert result.stderr == " 10% m\n" + failure


def test_the_list_is_a_table() -> None:
    wire = Wire({"data": [{**JOB, "progress": 1 / 3, "message": "word " * 99}]})
    result = run(wire, "jobs", "list", "--status", "succeeded", "--kind", "fit")
    row = result.output.splitlines()[1].split()
    assert row[:5] == ["job-1", "fit", "cheer", "succeeded", "0.33"]
    assert row[-1] == "word..."
    assert dict(wire.requests[0].url.params) == {"status": "succeeded", "kind": "fit"}


@pytest.mark.parametrize(
    ("command", "request_"),
    [
        ("show", "GET /v1/steering/jobs/job-1"),
        ("cancel", "DELETE /v1/steering/jobs/job-1"),
        ("resume", "POST /v1/steering/jobs/job-1/resume"),
        ("rerun", "POST /v1/steering/jobs/job-1/rerun"),
    ],
)
def test_one_job(command: str, request_: str) -> None:
    wire = Wire(JOB)
    result = run(wire, "jobs", command, "job-1")
    assert json.loads(result.stdout)["id"] == "job-1"
    assert f"{wire.requests[0].method} {wire.requests[0].url.path}" == request_


def test_against_a_server(tmp_path: Path) -> None:
    """Kind `steps` of the test server, by the client and by the command."""
    with ServerProcess(str(tmp_path)) as server, Coxswain(server.url, max_retries=0) as client:
        with pytest.raises(UnprocessableError, match="steps"):
            client.jobs.create("steps", steps=100)
        with pytest.raises(NotFoundError):
            client.jobs.wait("job-" + "0" * 32)
        job = client.jobs.create("steps", steps=3, stop_at=2)
        seen: list[JobEvent] = []
        with client.jobs.events(job.id) as stream:
            seen.extend(e for e, _ in zip(stream, range(3), strict=False))
        assert client.jobs.cancel(job.id).status == "cancelled"
        assert client.jobs.wait(job.id, seen.append).is_final
        assert seen[-1].status == "cancelled"
        resumed = CliRunner().invoke(app, ["jobs", "resume", job.id], obj=client)
        last = json.loads(resumed.stdout)["num_events"]
        assert last == seen[-1].number + 1
        client.jobs.cancel(job.id)
        later: list[JobEvent] = []
        client.jobs.wait(job.id, later.append, after=last)
        assert later[0].number == last + 1
        done = client.jobs.wait(client.jobs.create("steps", steps=2, save="made").id)
        assert (done.has_succeeded, done.request) == (True, {"steps": 2, "save": "made"})
        assert done.result is not None
        assert done.result["direction"] == "made@1"
        with pytest.raises(ConflictError, match="rerun"):
            client.jobs.resume(done.id)
        again = CliRunner().invoke(app, ["jobs", "rerun", done.id, "--watch"], obj=client)
        assert (again.exit_code, again.stdout) == (0, "made@1\n")
        assert client.jobs.list().data[0].rerun_of == done.id
        listed = CliRunner().invoke(app, ["jobs", "list", "--json"], obj=client)
        assert [j["status"] for j in json.loads(listed.stdout)] == [
            *("succeeded", "succeeded", "cancelled")
        ]
