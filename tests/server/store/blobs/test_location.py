"""Artifacts in an object store: its address, its faults, and what is told about them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.api.http.error_table import reply_to
from server.store import Store
from server.store.blobs.blobs import BlobStore
from server.store.blobs.directory import BlobDirectory
from server.store.blobs.location import open_blobs
from server.store.errors import InsufficientStorageError, StoreError, StoreUnavailableError
from tests.server.store import samples
from tests.server.store.samples import direction, put

from .s3_server import KEY_ID, SECRET, S3Server

BUCKET = "s3://bucket/prefix"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with S3Server() as server:
        server.lend_credentials(monkeypatch)
        yield server


@pytest.fixture
def blobs(s3: S3Server, tmp_path: Path) -> BlobStore:
    return open_blobs(BUCKET, tmp_path, 0)


@pytest.fixture
def remote(s3: S3Server, tmp_path: Path) -> Iterator[Store]:
    """A store with its tensors in the bucket."""
    opened = Store.open(tmp_path, artifacts_url=BUCKET, load=samples.load)
    yield opened
    opened.close()


def test_a_folder_by_address_is_the_same_as_by_path(tmp_path: Path) -> None:
    found = open_blobs(f"file://{tmp_path}/with%20space", tmp_path / "unused", 0)
    assert isinstance(found, BlobDirectory)
    assert (tmp_path / "with space" / found.put(b"x")).read_bytes() == b"x"
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ftp://bucket/x", "expected s3://bucket/prefix"),
        ("memory:///", "expected s3://bucket/prefix"),
        ("bucket/prefix", "expected s3://bucket/prefix"),
        ("s3:///prefix", "expected s3://bucket/prefix"),
        ("file://relative/x", "expected s3://bucket/prefix"),
        ("s3://id:hunter2@bucket/x", "credentials in the environment"),
        ("az://container/x?sig=hunter2", "credentials in the environment"),
        ("az://container/x", "the account"),
    ],
)
def test_an_address_that_cannot_be_used_is_told(tmp_path: Path, url: str, expected: str) -> None:
    with pytest.raises(StoreError, match=expected) as caught:
        open_blobs(url, tmp_path, 0)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_missing_package_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "server.store.blobs.objects", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(StoreError, match=r"pip install 'coxswain\[objects\]'"):
        open_blobs(BUCKET, tmp_path, 0)


def test_an_object_is_created_only_where_there_is_none(s3: S3Server, blobs: BlobStore) -> None:
    digest = blobs.put(b"x")
    blobs.put(b"x")
    key = f"prefix/{digest}"
    assert s3.calls == [("PUT", key, "*"), ("PUT", key, "*"), ("GET", key, None)]


@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        ((403, "<Error><Code>AccessDenied</Code></Error>"), StoreUnavailableError, 503),
        ((400, "<Error><Code>QuotaExceeded</Code></Error>"), InsufficientStorageError, 507),
        ((400, "<Error><Code>XMinioStorageFull</Code></Error>"), InsufficientStorageError, 507),
    ],
    ids=["refused", "quota", "full"],
)
def test_faults_of_the_service_keep_their_kind_and_no_secrets(
    s3: S3Server, blobs: BlobStore, fault: tuple[int, str], kind: type[Exception], status: int
) -> None:
    s3.fault = (fault[0], f"{fault[1]}{SECRET}{KEY_ID}")
    with pytest.raises(kind) as caught:
        blobs.put(b"x")
    told = "".join(traceback.format_exception(caught.value))
    assert SECRET not in told
    assert KEY_ID not in told
    assert reply_to(caught.value, "/v1/steering/directions").status == status


def test_a_service_that_is_gone_is_no_damage(remote: Store, s3: S3Server) -> None:
    """Otherwise a server that starts while the network is down quarantines everything."""
    record = put(remote, direction()).record
    s3.fault = (403, "")
    for use in (remote.verify, remote.artifacts.check, remote.artifacts.collect):
        with pytest.raises(StoreUnavailableError):
            use()
    with pytest.raises(StoreUnavailableError):
        remote.directions.read(record)
    s3.fault = None
    assert remote.directions.get("refusal").is_available
    assert remote.verify().is_sound


def test_nothing_is_stored_where_the_object_cannot_be(remote: Store, s3: S3Server) -> None:
    s3.fault = (403, "")
    with pytest.raises(StoreUnavailableError):
        put(remote, direction())
    s3.fault = None
    assert remote.directions.list().items == ()
    assert put(remote, direction()).record.version == 1


def test_damage_in_the_bucket_is_quarantined_and_repaired(remote: Store, s3: S3Server) -> None:
    value = direction()
    record = put(remote, value).record
    s3.objects[f"prefix/{record.sha256}"] = b"other"
    assert remote.verify().directions == ("refusal@1",)
    assert s3.objects == {f"prefix/quarantine/{record.sha256}": b"other"}
    assert put(remote, value).record.is_available
    assert remote.artifacts.check().is_sound
    assert remote.directions.load(record).digest == value.digest
