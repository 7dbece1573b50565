"""kill -9 during uploads: never a torn file under a final name, never a row without its file."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
from pathlib import Path

import pytest

from server.store import DirectionRecord, Store

from . import samples
from .uploading import Uploader

_POINTS = ["write", "fsync", "rename", "renamed", "row", "commit"]


def check(data_dir: Path) -> int:
    """Check a store that was not closed; returns its number of directions."""
    store = Store.open(data_dir, load=samples.load, low_water_bytes=0)
    artifacts = [path for path in (data_dir / "artifacts").iterdir() if path.is_file()]
    for path in artifacts:
        assert re.fullmatch("[0-9a-f]{64}", path.name), "the sweep left something"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, "torn file"
    records = [r for d in store.directions.list().items for r in _versions(store, d.name)]
    assert {r.sha256 for r in records} <= {path.name for path in artifacts}, "row without file"
    for record in records:
        assert store.directions.load(record).digest == record.digest
    assert store.verify().is_sound
    store.close()
    return len(records)


def _versions(store: Store, name: str) -> tuple[DirectionRecord, ...]:
    records = store.directions.versions(name, limit=200).items
    assert [r.version for r in records] == list(range(len(records), 0, -1))
    return records


def test_kills_at_any_moment(uploader: Uploader, tmp_path: Path) -> None:
    stored = 0
    for seed in range(15):
        child = uploader.start(tmp_path, seed, "anywhere")
        uploader.wait(random.uniform(0, 0.06))
        os.kill(child, signal.SIGKILL)
        assert uploader.ended() == [-signal.SIGKILL]
        now = check(tmp_path)
        assert now >= stored, "a stored version was lost"
        stored = now


@pytest.mark.parametrize("point", _POINTS)
def test_kills_at_every_step(uploader: Uploader, tmp_path: Path, point: str) -> None:
    uploader.start(tmp_path, 0, point)
    assert uploader.ended() == [-signal.SIGKILL]
    left = {path.suffix for path in (tmp_path / "artifacts").glob("*") if path.is_file()}
    assert left == ({".tmp"} if point in ("write", "fsync", "rename") else {""})
    assert check(tmp_path) == 0
