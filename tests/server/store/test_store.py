"""The store as a whole: opening, checking, repairing."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from safetensors.torch import save as save_safetensors

from server.store import SYSTEM, Store
from server.store.errors import CorruptArtifactError

from . import samples
from .samples import blob, direction, publish, put


def damage(tmp_path: Path, sha256: str) -> None:
    path = tmp_path / "artifacts" / sha256
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_opening_makes_a_private_directory(tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "data"
    store = Store.open(data_dir)
    store.close()
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert (data_dir / "coxswain.db").is_file()


def test_opening_again_finds_everything(tmp_path: Path) -> None:
    store = Store.open(tmp_path, low_water_bytes=0)
    record = put(store, direction()).record
    made = publish(store, "careful", "refusal")
    store.close()
    (tmp_path / "artifacts" / f"{record.sha256}.0.tmp").write_bytes(b"half")
    again = Store.open(tmp_path, low_water_bytes=0)
    assert again.directions.get("refusal") == record
    assert again.profiles.get("careful") == made
    assert list((tmp_path / "artifacts").glob("*.tmp")) == []
    again.close()


def test_the_check_quarantines_what_is_damaged(store: Store, tmp_path: Path) -> None:
    bad = put(store, direction("bad", 1)).record
    put(store, direction("good", 2))
    publish(store, "uses-bad", "bad", "good")
    publish(store, "uses-good", "good")
    assert store.verify().is_sound
    damage(tmp_path, bad.sha256)
    found = store.verify()
    assert (found.num_blobs, found.directions, found.profiles) == (2, ("bad@1",), ("uses-bad@1",))
    assert not store.directions.get("bad").is_available
    assert store.profiles.get("uses-bad").unavailable == ("bad@1",)
    assert store.profiles.get("uses-good").is_available
    with pytest.raises(CorruptArtifactError):
        store.directions.read(bad)
    assert store.verify() == found
    actions = [event.action for event in store.audit.list().items]
    assert actions.count("direction.quarantine") == 1


def test_the_same_upload_repairs_every_version_of_the_file(store: Store, tmp_path: Path) -> None:
    value = direction("one", 1)
    record = put(store, value).record
    put(store, direction("two", 1))
    damage(tmp_path, record.sha256)
    assert store.verify().directions == ("one@1", "two@1")
    saved = store.directions.put(value, blob(value), by=SYSTEM)
    assert (saved.created, saved.record.version) == (False, 1)
    assert store.verify().is_sound
    assert store.directions.load(store.directions.get("two")).digest == value.digest


def test_the_same_tensors_in_another_file_repair_a_version(store: Store, tmp_path: Path) -> None:
    value = direction()
    record = put(store, value).record
    damage(tmp_path, record.sha256)
    store.verify()
    other = save_safetensors(dict(value.tensors), metadata={"note": "another file"})
    saved = store.directions.put(value, other, by=SYSTEM)
    assert (saved.created, saved.record.is_available) == (False, True)
    assert store.directions.read(store.directions.get("refusal", 1)) == other


def test_a_file_put_back_ends_the_quarantine(store: Store, tmp_path: Path) -> None:
    record = put(store, direction()).record
    path = tmp_path / "artifacts" / record.sha256
    content = path.read_bytes()
    path.unlink()
    assert store.verify().directions == ("refusal@1",)
    path.write_bytes(content)
    assert store.verify().is_sound
    assert store.directions.get("refusal").is_available


def test_a_file_with_other_tensors_is_not_loaded(store: Store) -> None:
    record = store.directions.put(direction(seed=1), blob(direction(seed=2)), by=SYSTEM).record
    with pytest.raises(CorruptArtifactError, match="expected"):
        store.directions.load(record)


def test_the_log_number_moves_with_the_registry(store: Store) -> None:
    """Readers may keep what they resolved for as long as it stays the same."""
    seen = [store.audit.sequence()]
    put(store, direction())
    seen.append(store.audit.sequence())
    store.profiles.save(samples.profile("careful", "refusal"), by=SYSTEM)
    seen.append(store.audit.sequence())
    store.profiles.publish("careful", by=SYSTEM)
    seen.append(store.audit.sequence())
    store.aliases.put("live", "careful", by=SYSTEM)
    seen.append(store.audit.sequence())
    assert seen == sorted(set(seen))
    store.aliases.put("live", "careful", by=SYSTEM)
    put(store, direction())
    assert store.audit.sequence() == seen[-1]


def test_times_are_utc_whatever_the_clock_says(tmp_path: Path) -> None:
    store = Store.open(tmp_path, low_water_bytes=0, clock=lambda: datetime.max.replace(tzinfo=UTC))
    record = put(store, direction()).record
    assert store.directions.get("refusal").created_at == record.created_at
    assert store.audit.verify() == 1
    store.close()
