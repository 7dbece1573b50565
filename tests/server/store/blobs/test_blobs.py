"""What every place for tensors promises: a directory, and object stores."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from obstore import delete, put
from obstore.store import LocalStore, MemoryStore, ObjectStore

from server.store.blobs.blobs import BlobStore
from server.store.blobs.directory import BlobDirectory
from server.store.blobs.objects import BlobObjects
from server.store.errors import CorruptArtifactError

from .s3_server import S3Server

CONTENT = b"0123456789" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
Damage = Callable[[bytes | None], None]


@pytest.fixture(params=["directory", "memory", "local", "s3"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[BlobStore, Damage]]:
    """Each place in turn, and what writes other bytes in `DIGEST`'s stead, or removes it."""
    if request.param == "s3":
        with S3Server() as server:
            server.lend_credentials(monkeypatch)
            yield BlobObjects.at("s3://bucket/pre/fix"), server.damage(f"pre/fix/{DIGEST}")
    elif request.param == "directory":
        yield BlobDirectory(tmp_path, low_water_bytes=0), _file(tmp_path / DIGEST)
    else:
        local = request.param == "local"
        store = LocalStore(prefix=tmp_path) if local else MemoryStore()
        yield BlobObjects(store), _object(store)


def _file(path: Path) -> Damage:
    return lambda content: path.unlink() if content is None else _drop(path.write_bytes(content))


def _object(store: ObjectStore) -> Damage:
    return lambda content: (
        delete(store, DIGEST) if content is None else _drop(put(store, DIGEST, content))
    )


def _drop(_value: object) -> None:
    return None


@pytest.fixture
def blobs(place: tuple[BlobStore, Damage]) -> BlobStore:
    return place[0]


def test_content_comes_back_under_its_digest(blobs: BlobStore) -> None:
    assert not blobs.contains(DIGEST)
    assert not blobs.is_intact(DIGEST)
    assert blobs.put(CONTENT) == blobs.put(CONTENT) == DIGEST
    assert blobs.contains(DIGEST)
    assert blobs.is_intact(DIGEST)
    assert blobs.read(DIGEST) == CONTENT


def test_nothing_is_content_too(blobs: BlobStore) -> None:
    assert blobs.read(blobs.put(b"")) == b""


@pytest.mark.parametrize(
    "left",
    [CONTENT[:-1], b"x" + CONTENT[1:], b"", None],
    ids=["truncated", "flipped", "emptied", "removed"],
)
def test_damage_is_found_on_reading_and_repaired(
    place: tuple[BlobStore, Damage], left: bytes | None
) -> None:
    blobs, damage = place
    blobs.put(CONTENT)
    damage(left)
    assert blobs.contains(DIGEST) is (left is not None)
    assert not blobs.is_intact(DIGEST)
    with pytest.raises(CorruptArtifactError, match=DIGEST[:12]):
        blobs.read(DIGEST)
    assert blobs.put(CONTENT) == DIGEST
    assert blobs.read(DIGEST) == CONTENT


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", DIGEST.upper(), DIGEST + "\n", ""])
def test_only_a_digest_is_a_path_or_key(blobs: BlobStore, name: str) -> None:
    uses = (blobs.read, blobs.contains, blobs.is_intact, blobs.quarantine, blobs.remove)
    for use in uses:
        with pytest.raises(AssertionError, match="not a SHA-256"):
            use(name)


def test_the_list_has_every_file_with_size_and_time(
    place: tuple[BlobStore, Damage],
) -> None:
    blobs, damage = place
    assert list(blobs.list()) == []
    before = datetime.now(UTC)
    other = blobs.put(b"other")
    blobs.put(CONTENT)
    damage(b"damaged")
    found = {blob.digest: blob for blob in blobs.list()}
    assert {digest: blob.size_bytes for digest, blob in found.items()} == {other: 5, DIGEST: 7}
    for blob in found.values():
        assert abs(blob.stored_at - before) < timedelta(minutes=1)


def test_what_is_removed_is_gone_and_may_come_back(blobs: BlobStore) -> None:
    other = blobs.put(b"other")
    blobs.put(CONTENT)
    blobs.remove(DIGEST)
    blobs.remove(DIGEST)
    assert [blob.digest for blob in blobs.list()] == [other]
    assert blobs.put(CONTENT) == DIGEST
    assert blobs.read(DIGEST) == CONTENT


def test_what_is_quarantined_is_neither_read_nor_listed(
    place: tuple[BlobStore, Damage],
) -> None:
    blobs, damage = place
    blobs.put(CONTENT)
    damage(b"damaged")
    blobs.quarantine(DIGEST)
    blobs.quarantine(DIGEST)
    assert not blobs.contains(DIGEST)
    assert list(blobs.list()) == []
    blobs.put(CONTENT)
    assert blobs.read(DIGEST) == CONTENT


def test_nothing_is_left_to_sweep(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    assert (blobs.sweep(dry_run=True), blobs.sweep()) == (0, 0)
    assert blobs.is_intact(DIGEST)
