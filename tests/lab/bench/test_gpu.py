"""The measurement for a GPU runs through on a CPU with a tiny model, so that it will there."""

from __future__ import annotations

import subprocess

import pytest

from lab.bench import gpu
from tests.source_tree import ROOT


def test_it_prints_a_row_for_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(
        [
            *("--size", "tiny", "--device", "cpu", "--profiles", "0", "2", "--requests", "1", "3"),
            *("--new-tokens", "4", "--prompt-tokens", "9"),
        ]
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")][:4] for line in lines]
    want = [
        [what, graphs, str(profiles), str(requests)]
        for graphs in ("auto", "off")
        for profiles in (0, 2)
        for what, requests in (("decode", 1), ("decode", 3), ("prefill", 3))
    ]
    assert cells[1:] == want


def test_the_script_can_be_read_by_bash_and_says_how_it_is_used() -> None:
    script = ROOT / "lab" / "bench" / "gpu.sh"
    subprocess.run(["bash", "-n", script], check=True)
    told = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "gpu.sh wheels" in told.stderr
