"""What the comparison of servers sends, checks, pauses and reports, against stub servers."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.bench.http.__main__ import main
from lab.bench.http.burst import Answer, Burst, Prompts
from lab.bench.http.report import Spread, table
from lab.bench.http.server import Server, ServerError
from tests.source_tree import ROOT

_TOKENIZER = ROOT / "server/embedded/checkpoint"
_CORE = max(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def unchanged_affinity() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


def _stub(*options: object) -> str:
    module = f"{sys.executable} -m tests.lab.bench.stub_server"
    return " ".join(["env", f"PYTHONPATH={ROOT}", module, "--port {port}", *map(str, options)])


def _compare(servers: dict[str, str], *options: object) -> None:
    given = [f"--server={name}={command}" for name, command in servers.items()]
    sizes = ["--new-tokens=3", "--rounds=2", f"--tokenizer={_TOKENIZER}"]
    main([*given, *sizes, *map(str, options)])


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_servers_take_turns_over_the_same_prompts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bursts.jsonl"
    records = {name: tmp_path / name for name in ("ours", "peer")}
    _compare(
        {name: _stub("--record", path) for name, path in records.items()},
        *("--concurrency", 1, 3, "--prompt-tokens", 9, 20, "--out", out),
    )
    bursts = _lines(out)
    turns = [burst["server"] for burst in bursts]
    assert turns == ["ours", "peer"] * 4 + ["peer", "ours"] * 4
    sizes = Counter((b["requests"], b["prompt_tokens"], len(b["answers"])) for b in bursts)
    assert sizes == {(n, length, n): 4 for n in (1, 3) for length in (9, 20)}
    assert all(a["num_tokens"] == 3 for b in bursts for a in b["answers"])

    sent = {name: [tuple(b["prompt"]) for b in _lines(path)] for name, path in records.items()}
    measured = {name: [p for p in prompts if len(p) in (9, 20)] for name, prompts in sent.items()}
    assert Counter(measured["ours"]) == Counter(measured["peer"])
    every = [*sent["ours"], *sent["peer"]]
    assert max(Counter(p for p in every if len(p) in (9, 20)).values()) == 2
    assert Counter(map(len, measured["ours"])) == {9: 2 * 4, 20: 2 * 4}

    printed = capsys.readouterr().out
    assert printed.count("| ours |") == printed.count("| peer |") == 4
    assert "3 requests at once, 20-token prompts" in printed


def test_a_server_may_take_text_other_fields_and_another_model(tmp_path: Path) -> None:
    record = tmp_path / "bodies"
    _compare(
        {"peer": _stub("--text", "--fault", "unnamed", "--record", record)},
        *("--concurrency", 2, "--prompt-tokens", 12, "--text", "peer", "--model", "peer=folder"),
        """--body=peer={"ignore_eos": null, "top_k": 1}""",
    )
    bodies = _lines(record)
    assert {(b["model"], b["top_k"], b["temperature"]) for b in bodies} == {("folder", 1, 0)}
    assert Counter(len(body["prompt"].split()) for body in bodies) == {12: 4, 8: 2}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("dies", "'peer' ended with 1 before it was ready\nno such checkpoint"),
        ("short", "'peer': 8 prompt tokens and 1 new ones in 1 events; expected 8 and 2"),
        ("error", "'peer' answered.*out of memory"),
        ("refuses", "'peer' answered.*not such a prompt"),
    ],
)
def test_what_a_server_does_wrong_ends_the_comparison(fault: str, said: str) -> None:
    with pytest.raises(SystemExit, match=f"server {said}"):
        _compare({"peer": _stub("--fault", fault)}, "--concurrency", 1)


def test_a_name_without_a_server_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _compare({"ours": "http://127.0.0.1:1"}, "--text", "theirs")
    assert "no --server is called 'theirs'; there are ours" in capsys.readouterr().err


def test_a_paused_server_is_stopped_and_one_that_ended_is_gone() -> None:
    server = Server("stub", _stub(), _CORE)
    try:
        server.wait_until_ready(60)
        [process] = [p for p in psutil.Process().children() if "stub_server" in p.cmdline()[-3]]
        assert (server.model, process.cpu_affinity()) == ("stub", [_CORE])
        assert (server.cpu_seconds() or 0.0) > 0.0
        server.pause()
        assert process.status() == psutil.STATUS_STOPPED
        server.resume()
        assert process.status() != psutil.STATUS_STOPPED
        server.pause()
    finally:
        server.stop()
    assert not process.is_running()


def test_a_server_of_somebody_else_is_left_alone() -> None:
    started = Server("stub", _stub(), _CORE)
    try:
        started.wait_until_ready(60)
        given = Server("stub", started.url + "/", _CORE)
        given.wait_until_ready(60)
        given.pause()
        given.stop()
        given.wait_until_ready(60)
        assert (given.model, given.cpu_seconds()) == ("stub", None)
    finally:
        started.stop()
    with pytest.raises(ServerError, match="server 'gone' was not ready in 0 s"):
        Server("gone", started.url, _CORE).wait_until_ready(0)


def test_prompts_have_as_many_tokens_as_text_too() -> None:
    prompts = Prompts(_TOKENIZER, seed=0)
    drawn = prompts.draw(5, 40)
    assert [len(prompt) for prompt in drawn] == [40] * 5
    assert len({tuple(prompt[:4]) for prompt in drawn}) == 5
    assert [len(prompts.text(prompt).split()) for prompt in drawn] == [40] * 5
    assert drawn == Prompts(_TOKENIZER, seed=0).draw(5, 40)
    assert drawn != Prompts(_TOKENIZER, seed=1).draw(5, 40)


def test_a_table_has_medians_quartiles_and_ratios_of_rounds() -> None:
    def burst(seconds: float, cpu_seconds: float | None) -> Burst:
        answers = (Answer(0.25 * seconds, seconds, 4), Answer(0.5 * seconds, seconds, 4))
        return Burst(answers, seconds, cpu_seconds)

    ours = [burst(seconds, seconds / 2) for seconds in (1.0, 2.0, 4.0)]
    peer = [burst(seconds, None) for seconds in (2.0, 2.0, 2.0)]
    assert table({"ours": ours, "peer": peer}).splitlines()[2:] == [
        "| ours | 750 (500 to 1000) | 416.7 (270.8 to 625.0) | 4.0 (3.0 to 6.0) "
        "| 8.0 (6.0 to 12.0) | 1.00 (1.00 to 1.00) | 1.00 (1.00 to 1.00) |",
        "| peer | 750 (500 to 1000) | 416.7 (333.3 to 500.0) | 4.0 (4.0 to 4.0) "
        "|  | 1.00 (0.75 to 1.50) |  |",
    ]
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0)
