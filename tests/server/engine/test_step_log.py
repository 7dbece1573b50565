from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from server.engine.attention.tiled import TiledLayer
from server.engine.step_log import StepLog

from .harness import EngineHarness, load_tiny

TIMEOUT = 30.0


class Ticks:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.mark.parametrize(("gap", "keeps_failing"), [(30.0, True), (31.0, False)])
def test_three_failures_in_a_minute_are_too_many(
    ticks: Ticks, gap: float, keeps_failing: bool
) -> None:
    log = StepLog(ticks)
    seen = []
    for _ in range(3):
        log.failed()
        seen.append(log.keeps_failing)
        ticks.now += gap
    assert seen == [False, False, keeps_failing]


def test_failures_long_ago_are_forgotten(ticks: Ticks) -> None:
    log = StepLog(ticks)
    for gap in (0.0, 1.0, 3600.0, 1.0):
        ticks.now += gap
        log.failed()
    assert not log.keeps_failing
    ticks.now += 1.0
    log.failed()
    assert log.keeps_failing


def test_durations_fall_into_the_bucket_that_holds_them(ticks: Ticks) -> None:
    log = StepLog(ticks)
    for seconds in (0.0005, 0.001, 0.002, 7.0, 100.0):
        log.completed(seconds)
    steps = log.step_seconds
    assert (steps.counts[:2], steps.counts[-2:], steps.num_steps) == ((2, 1), (1, 1), 5)
    assert steps.total == pytest.approx(107.0035)


def test_silence_counts_from_the_last_sign_of_progress(ticks: Ticks) -> None:
    log = StepLog(ticks)
    ticks.now += 100
    log.beat()
    ticks.now += 2
    assert log.seconds_silent == 2
    log.completed(2.0)
    assert log.seconds_silent == 0


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "qwen3_moe"])
def test_a_step_may_take_any_time_while_its_pieces_come(
    family: str, ticks: Ticks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every module and every span of attention takes 4 s: minutes a step, never long silent."""
    harness = EngineHarness(load_tiny(family, tmp_path), max_num_batched_tokens=64)
    monkeypatch.setattr(harness.core._steps, "_clock", ticks)
    silences: list[float] = []

    def pass_time(*_: Any) -> None:
        silences.append(harness.core.seconds_since_progress)
        ticks.now += 4.0

    for module in harness.loaded.model.modules():
        if not list(module.children()):
            module.register_forward_hook(pass_time)
    original = TiledLayer._attend_span

    def attend_span(*args: Any) -> Any:
        pass_time()
        return original(*args)

    monkeypatch.setattr(TiledLayer, "_attend_span", attend_span)
    harness.run(harness.request(range(3, 60), max_tokens=3))
    assert ticks.now > 1000.0 + 3 * TIMEOUT, "each of the steps outlasts the timeout"
    assert 0.0 < max(silences) < TIMEOUT


def test_each_command_and_each_request_of_a_step_is_progress(
    ticks: Ticks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Admissions, and what is recorded of each prompt, take 20 s each."""
    harness = EngineHarness(load_tiny("llama", tmp_path), max_num_batched_tokens=64)
    core = harness.core
    monkeypatch.setattr(core._steps, "_clock", ticks)
    silences: list[float] = []

    def slow(name: str) -> None:
        original = getattr(core, name)

        def work(*args: Any) -> Any:
            silences.append(core.seconds_since_progress)
            ticks.now += 20.0
            return original(*args)

        monkeypatch.setattr(core, name, work)

    for name in ("_admit", "_note_prompt_logits", "_record_part", "_emit_part"):
        slow(name)
    asked = [harness.request([3, 4, 5], prompt_logprobs=1, max_tokens=2) for _ in range(4)]
    harness.run(*asked)
    assert len(silences) > 12
    assert max(silences) < TIMEOUT
