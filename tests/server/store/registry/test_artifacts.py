"""Files that no row names: found, spared while they are young, and removed when they are not."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from server.store import SYSTEM, Store
from server.store.errors import ConflictError
from server.store.tables import DirectionRow, DirectionTagRow
from tests.server.store import samples
from tests.server.store.samples import blob, direction, put
from tests.server.store.uploading import Uploader

ORPHAN = b"nobody names me"
NO_GRACE = timedelta(days=-36500)


@pytest.fixture
def store(store: Store) -> Store:
    """A store that somebody uses."""
    put(store, direction("kept"))
    return store


def path(tmp_path: Path, digest: str) -> Path:
    return tmp_path / "artifacts" / digest


def test_a_sound_store_has_nothing_to_say(store: Store) -> None:
    found = store.artifacts.check()
    assert found.is_sound
    assert (found.num_blobs, found.orphans, found.num_temporary) == (1, (), 0)
    assert store.artifacts.collect(NO_GRACE).orphans == ()


def test_damage_and_loss_are_told_apart(store: Store, tmp_path: Path) -> None:
    damaged = put(store, direction("damaged", 1)).record
    put(store, direction("twin", 1))
    missing = put(store, direction("missing", 2)).record
    store.directions.archive("missing", by=SYSTEM)
    path(tmp_path, damaged.sha256).write_bytes(b"other")
    path(tmp_path, missing.sha256).unlink()
    found = store.artifacts.check()
    assert not found.is_sound
    assert found.num_blobs == 3
    assert found.damaged == {damaged.sha256: ("damaged@1", "twin@1")}
    assert found.missing == {missing.sha256: ("missing@1",)}
    assert store.directions.get("damaged").is_available, "a check changes nothing"
    assert path(tmp_path, damaged.sha256).read_bytes() == b"other"


def test_a_file_without_a_row_is_removed_when_it_is_old(store: Store, tmp_path: Path) -> None:
    orphan = store.blobs.put(ORPHAN)
    (tmp_path / "artifacts" / "x.tmp").write_bytes(b"half")
    found = store.artifacts.check()
    assert found.is_sound
    assert ([item.digest for item in found.orphans], found.num_temporary) == ([orphan], 1)
    assert found.orphans[0].size_bytes == len(ORPHAN)
    now = store.clock().timestamp()
    os.utime(path(tmp_path, orphan), (now, now - 3500))
    young = store.artifacts.collect(timedelta(hours=1), dry_run=True)
    assert (young.orphans, young.num_spared, young.num_temporary) == ((), 1, 1)
    os.utime(path(tmp_path, orphan), (now, now - 3700))
    shown = store.artifacts.collect(timedelta(hours=1), dry_run=True)
    assert path(tmp_path, orphan).exists()
    assert store.artifacts.collect(timedelta(hours=1)) == shown
    assert ([item.digest for item in shown.orphans], shown.num_spared) == ([orphan], 0)
    left = {item.name for item in (tmp_path / "artifacts").iterdir() if item.is_file()}
    assert left == {store.directions.get("kept").sha256}


def test_archived_versions_keep_their_files_and_gone_ones_do_not(store: Store) -> None:
    archived = put(store, direction("archived", 1)).record
    gone = put(store, direction("gone", 2, tags=("a",))).record
    store.directions.archive("archived", by=SYSTEM)

    def forget(session: Any) -> None:
        session.execute(delete(DirectionTagRow))
        session.execute(delete(DirectionRow).where(DirectionRow.name == "gone"))

    store.database.write(forget)
    removed = store.artifacts.collect(NO_GRACE).orphans
    assert [item.digest for item in removed] == [gone.sha256]
    assert store.directions.load(archived).digest == archived.digest


def test_a_quarantined_file_stays_for_people(store: Store, tmp_path: Path) -> None:
    record = put(store, direction("bad", 1)).record
    path(tmp_path, record.sha256).write_bytes(b"other")
    store.verify()
    store.artifacts.collect(NO_GRACE)
    assert (tmp_path / "artifacts" / "quarantine" / record.sha256).read_bytes() == b"other"
    assert store.artifacts.check().missing == {record.sha256: ("bad@1",)}


def test_another_database_is_not_taken_for_the_files_own(store: Store, tmp_path: Path) -> None:
    """A wrong setting must not make every file an orphan."""
    digest = store.directions.get("kept").sha256
    other = Store.open(tmp_path, f"sqlite:///{tmp_path}/other.db")
    with pytest.raises(ConflictError, match="names none of the 1"):
        other.artifacts.collect(NO_GRACE)
    other.close()
    assert path(tmp_path, digest).exists()


def between_file_and_row(store: Store, act: Callable[[], object]) -> None:
    """Do `act` when an upload has stored its file and not yet begun its transaction."""
    write = store.database.write

    def interrupted(work: Callable[[Any], Any]) -> Any:
        store.database.write = write  # type: ignore[method-assign]
        act()
        return write(work)

    store.database.write = interrupted  # type: ignore[method-assign]


@pytest.mark.parametrize("known", [False, True], ids=["new file", "old orphan"])
def test_an_upload_wins_over_a_collection_that_takes_its_file(store: Store, known: bool) -> None:
    value = direction("raced", 7)
    if known:
        store.blobs.put(blob(value))
    taken: list[int] = []
    between_file_and_row(
        store, lambda: taken.append(len(store.artifacts.collect(NO_GRACE).orphans))
    )
    record = put(store, value).record
    assert taken == [1]
    assert store.directions.load(record).digest == value.digest
    assert store.artifacts.check().is_sound


def test_a_repair_wins_over_a_collection_too(store: Store, tmp_path: Path) -> None:
    value = direction("repaired", 8)
    record = put(store, value).record
    path(tmp_path, record.sha256).unlink()
    store.verify()
    between_file_and_row(store, lambda: path(tmp_path, record.sha256).unlink())
    assert put(store, value).record.is_available
    assert store.artifacts.check().is_sound


def test_a_row_that_comes_late_saves_its_file(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collection listed an orphan; before it is removed, an upload names it."""
    value = direction("late", 9)
    store.blobs.put(blob(value))
    holders = store.artifacts._holders

    def listed() -> dict[str, tuple[str, ...]]:
        found = holders()
        put(store, value)
        return found

    monkeypatch.setattr(type(store.artifacts), "_holders", lambda _self: listed())
    assert store.artifacts.collect(NO_GRACE).orphans == ()
    assert store.directions.load(store.directions.get("late")).digest == value.digest


def test_an_upload_waits_for_the_removal_of_its_file(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last look for a row and the removal, an upload must not find its file there."""
    value = direction("waits", 10)
    store.blobs.put(blob(value))
    remove, contains, looked = store.blobs.remove, store.blobs.contains, threading.Event()
    upload = threading.Thread(target=put, args=(store, value))

    def look(digest: str) -> bool:
        found = contains(digest)
        looked.set()
        return found

    def remove_late(digest: str) -> None:
        upload.start()
        looked.wait(0.3)  # it has to wait for us, so this runs out unless the lock is missing
        remove(digest)

    monkeypatch.setattr(store.blobs, "contains", look)
    monkeypatch.setattr(store.blobs, "remove", remove_late)
    assert len(store.artifacts.collect(NO_GRACE).orphans) == 1
    upload.join()
    assert store.artifacts.check().is_sound
    assert store.directions.load(store.directions.get("waits")).digest == value.digest


def test_uploads_and_collections_at_once(
    store: Store, url: Any, uploader: Uploader, tmp_path: Path
) -> None:
    """Two processes upload while this one collects everything it can."""
    uploader.race(tmp_path, url.render_as_string(hide_password=False), "busy", 12)
    for _ in range(40):
        store.artifacts.collect(NO_GRACE)
    assert uploader.ended() == [0, 0]
    found = store.artifacts.check()
    assert found.is_sound
    assert found.num_blobs == 13
    assert len(store.directions.versions("busy").items) == 12


@pytest.mark.parametrize("point", ["write", "renamed", "row", "commit"])
def test_what_kills_leave_is_collected(uploader: Uploader, tmp_path: Path, point: str) -> None:
    seeded = Store.open(tmp_path, load=samples.load, low_water_bytes=0)
    put(seeded, direction("kept"))
    seeded.close()
    uploader.start(tmp_path, 0, point)
    assert uploader.ended() == [-signal.SIGKILL]
    store = Store.open(tmp_path, load=samples.load, low_water_bytes=0, sweep=False)
    found = store.artifacts.check()
    assert found.is_sound
    left = (len(found.orphans), found.num_temporary)
    assert left == ((0, 1) if point == "write" else (1, 0))
    assert store.artifacts.collect().num_spared == left[0]
    assert len(store.artifacts.collect(NO_GRACE).orphans) == left[0]
    again = store.artifacts.check()
    assert (again.num_blobs, again.orphans, again.num_temporary) == (1, (), 0)
    store.close()


def test_a_row_moved_to_another_file_frees_the_old_one(store: Store) -> None:
    old = store.directions.get("kept").sha256
    new = store.blobs.put(ORPHAN)
    store.database.write(lambda session: session.execute(update(DirectionRow).values(sha256=new)))
    assert [item.digest for item in store.artifacts.collect(NO_GRACE).orphans] == [old]
