"""Tensors on disk: what a full or failing disk and dead writers leave."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from server.store import Store
from server.store.blobs.directory import BlobDirectory
from server.store.errors import InsufficientStorageError, StoreUnavailableError
from tests.server.store.samples import direction, put

CONTENT = b"0123456789" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobDirectory:
    return BlobDirectory(tmp_path / "artifacts", low_water_bytes=0)


def files(root: Path) -> set[str]:
    return {path.name for path in (root / "artifacts").iterdir() if path.is_file()}


def short_write(limit: int) -> object:
    """An `os.write` on a disk that has room for `limit` bytes."""
    real, room = os.write, [limit]

    def write(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real(descriptor, bytes(data[: min(len(data), room[0], 700)]))
        room[0] -= count
        return count

    return write


def full_sync(_descriptor: int) -> None:
    raise OSError(errno.EDQUOT, "Disk quota exceeded")


@pytest.mark.parametrize(
    ("call", "fault"),
    [("write", short_write(0)), ("write", short_write(5000)), ("fsync", full_sync)],
)
def test_a_full_disk_leaves_nothing(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, fault: object
) -> None:
    value = direction(width=4096)
    with monkeypatch.context() as patched:
        patched.setattr(os, call, fault)
        with pytest.raises(InsufficientStorageError, match="free space"):
            put(sqlite_store, value)
    assert files(tmp_path) == set()
    assert sqlite_store.directions.list().items == ()
    assert put(sqlite_store, value).record.version == 1


def test_short_writes_are_continued(blobs: BlobDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", short_write(10**6))
        blobs.put(CONTENT)
    assert blobs.read(DIGEST) == CONTENT


def test_another_fault_of_the_disk_is_not_called_full(
    blobs: BlobDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StoreUnavailableError, match="Input/output"):
        blobs.put(CONTENT)
    assert files(tmp_path) == set()


def test_the_low_water_mark_refuses_before_the_disk_is_full(tmp_path: Path) -> None:
    blobs = BlobDirectory(tmp_path / "artifacts", low_water_bytes=1 << 62)
    assert not blobs.has_room()
    with pytest.raises(InsufficientStorageError):
        blobs.put(CONTENT)
    assert files(tmp_path) == set()


def test_a_name_appears_only_when_synchronised(
    blobs: BlobDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync of the file, then rename, then fsync of the directory."""
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def spy_sync(descriptor: int) -> None:
        steps.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).suffix}")
        sync(descriptor)

    def spy_replace(source: Path, target: Path) -> None:
        steps.append("rename")
        assert source.parent == target.parent
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_sync)
    monkeypatch.setattr(os, "replace", spy_replace)
    blobs.put(CONTENT)
    assert steps == ["fsync .tmp", "rename", "fsync "]


def test_the_sweep_leaves_live_writers_alone(
    blobs: BlobDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "artifacts" / "dead.tmp").write_bytes(b"half")
    swept: list[int] = []
    replace = os.replace

    def sweep_first(source: Path, target: Path) -> None:
        swept.append(BlobDirectory(tmp_path / "artifacts", 0).sweep())
        replace(source, target)

    monkeypatch.setattr(os, "replace", sweep_first)
    blobs.put(CONTENT)
    assert swept == [1]
    assert files(tmp_path) == {DIGEST}
    assert blobs.read(DIGEST) == CONTENT


def test_a_quarantined_file_is_kept_aside(blobs: BlobDirectory, tmp_path: Path) -> None:
    blobs.put(CONTENT)
    blobs.quarantine(DIGEST)
    blobs.quarantine(DIGEST)
    assert not blobs.is_intact(DIGEST)
    assert (tmp_path / "artifacts" / "quarantine" / DIGEST).read_bytes() == CONTENT
