"""What `coxctl` shows of a job that it watches, and of a server that goes away meanwhile."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from coxswain_client import APIConnectionError, AsyncCoxswain, Coxswain
from coxswain_client.cli import jobs as commands
from coxswain_client.errors import SteeringClientError

from .test_jobs import FAILED, JOB, event, run
from .wire import Wire, events

STOPPED = "the server stopped; resume the job to go on"
INTERRUPTED = {**JOB, "status": "interrupted", "result": None, "message": STOPPED}
AWAY = httpx.ConnectError("refused", request=httpx.Request("GET", "http://127.0.0.1:8000/v1"))
SAID = "the server went away (no answer from http://127.0.0.1:8000: refused; expected a Coxswain "


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been waited; a clock that goes on by them."""
    waited: list[float] = []
    monkeypatch.setattr(commands, "sleep", waited.append)
    monkeypatch.setattr(commands, "monotonic", lambda: sum(waited))
    return waited


def said(number: int, status: str, message: str) -> dict[str, Any]:
    return event(number, status) | {"message": message}


def test_a_failure_is_said_once() -> None:
    wire = Wire(events(event(1), said(2, "failed", "too few"), "[DONE]"), FAILED)
    result = run(wire, "jobs", "watch", "job-1")
    assert (result.exit_code, result.stderr) == (1, " 10% m\nError: job-1 failed: too few\n")


def test_the_end_of_an_earlier_attempt_is_shown() -> None:
    told = [said(1, "failed", "no room"), said(2, "queued", "queued to resume"), event(3)]
    result = run(Wire(events(*told, "[DONE]"), JOB), "jobs", "watch", "job-1")
    assert result.exit_code == 0
    assert result.stderr == " 10% no room\n 20% queued to resume\n 30% m\n"


@pytest.mark.parametrize(
    ("ended", "line"),
    [
        (INTERRUPTED, f"job-1 interrupted: {STOPPED}: coxctl jobs resume job-1"),
        ({**INTERRUPTED, "status": "cancelled", "message": "cancelled"}, "job-1 cancelled: "),
    ],
)
def test_an_end_says_what_to_do(ended: dict[str, Any], line: str) -> None:
    last = said(2, ended["status"], ended["message"])
    result = run(Wire(events(last, "[DONE]"), ended), "jobs", "watch", "job-1")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {line}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "away",
    [AWAY, httpx.Response(503, json={}), httpx.Response(502)],
    ids=["refused", "starting", "proxy"],
)
def test_a_server_that_comes_back_is_waited_for(away: Any, pauses: list[float]) -> None:
    wire = Wire(
        events(event(1), breaks=True),
        away,
        AWAY,
        events(said(2, "interrupted", STOPPED), "[DONE]"),
        INTERRUPTED,
    )
    result = run(wire, "jobs", "watch", "job-1")
    assert result.exit_code == 1
    first, gone, back, error = result.stderr.splitlines()
    assert first == " 10% m"
    assert gone.startswith("the server went away (")
    assert back == "the server is back"
    assert error == f"Error: job-1 interrupted: {STOPPED}: coxctl jobs resume job-1"
    assert len(pauses) == 2
    assert wire.requests[3].headers["last-event-id"] == "1"


def test_a_job_that_waited_goes_on_when_the_server_is_back() -> None:
    shutdown = {"error": {"message": "the server is shutting down", "code": "server_shutdown"}}
    wire = Wire(
        events(event(1, "queued"), shutdown),
        AWAY,
        events(event(2), "[DONE]"),
        JOB,
    )
    result = run(wire, "jobs", "watch", "job-1")
    assert (result.exit_code, result.stdout) == (0, "cheer@1\n")
    assert result.stderr.splitlines()[1:] == [
        "the server went away (the server is shutting down); waiting for it",
        "the server is back",
        " 20% m",
    ]


def test_a_server_that_stops_says_where_the_job_was(pauses: list[float]) -> None:
    """The stream tells of the interruption; the server need not come back for that."""
    wire = Wire(events(said(1, "interrupted", STOPPED), "[DONE]"), AWAY)
    result = run(wire, "jobs", "watch", "job-1")
    assert result.exit_code == 1
    assert result.stderr == f"Error: job-1 interrupted: {STOPPED}: coxctl jobs resume job-1\n"
    assert pauses == []


def test_a_server_that_stays_away_is_given_up(pauses: list[float]) -> None:
    result = run(Wire(events(event(1), breaks=True), AWAY), "jobs", "watch", "job-1")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[1].startswith(SAID)
    assert result.stderr.splitlines()[-1].startswith("Error: no answer from http://127.0.0.1:8000")
    assert 600 <= sum(pauses) < 610


def test_what_waiting_does_not_help_ends_at_once(pauses: list[float]) -> None:
    gone = httpx.Response(404, json={"error": {"message": "there is no job"}})
    result = run(Wire(gone), "jobs", "watch", "job-1")
    assert (result.exit_code, result.stderr) == (1, "Error: there is no job\n")
    assert pauses == []


async def test_programs_decide_for_themselves() -> None:
    asked: list[str] = []

    async def once(error: SteeringClientError) -> bool:
        asked.append(type(error).__name__)
        return len(asked) < 2

    wire = Wire(AWAY, AWAY)
    async with AsyncCoxswain(transport=wire, max_retries=0) as client:
        with pytest.raises(APIConnectionError):
            await client.jobs.wait("job-1", on_away=once)
    assert asked == ["APIConnectionError"] * 2
    with Coxswain(transport=Wire(AWAY, events("[DONE]"), JOB), max_retries=0) as plain:
        assert plain.jobs.wait("job-1", on_away=lambda _: True).has_succeeded
