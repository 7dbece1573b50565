"""Demo profiles are made once, on a model they fit, and never undo what people did."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from server.registry.demo import find_demo, import_demo
from server.resolver.library import load_direction_blob
from server.store import SYSTEM, ProfileStatus, Store
from server.store.errors import InsufficientStorageError, StoreUnavailableError
from steering.directions import Direction, DirectionKind
from steering.formats import dump_direction
from steering.sites import Site

from .echo_engine import SPEC


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    demo = tmp_path / "demo"
    (demo / "directions").mkdir(parents=True)
    for index, name in enumerate(("gloomy", "cheerful")):
        row = torch.eye(8)[index]
        direction = Direction(name, DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector": row})
        (demo / "directions" / f"{name}.safetensors").write_bytes(dump_direction(direction))
        metadata = {"model_fingerprint": SPEC.fingerprint, "tags": ["demo"]}
        (demo / "directions" / f"{name}.json").write_text(json.dumps(metadata))
    profiles = {
        name: {
            "description": f"{name} answers",
            "interventions": [{"operation": "add", "direction": name}],
        }
        for name in ("gloomy", "cheerful")
    }
    (demo / "profiles.json").write_text(json.dumps(profiles))
    return demo


def test_the_first_start_makes_them_and_the_next_ones_do_nothing(
    store: Store, folder: Path
) -> None:
    assert import_demo(folder, store, SPEC) == ["cheerful", "gloomy"]
    record = store.profiles.get("cheerful")
    assert (record.version, record.status) == (1, ProfileStatus.PUBLISHED)
    assert record.directions == ("cheerful@1",)
    assert store.directions.get("gloomy").tags == ("demo",)
    events = store.audit.list().items
    assert import_demo(folder, store, SPEC) == []
    assert store.audit.list().items == events


def test_what_people_removed_stays_removed(store: Store, folder: Path) -> None:
    import_demo(folder, store, SPEC)
    store.profiles.archive("gloomy", by=SYSTEM)
    assert import_demo(folder, store, SPEC) == []
    assert [item.name for item in store.profiles.list().items] == ["cheerful"]


def test_another_model_gets_none(store: Store, folder: Path) -> None:
    assert import_demo(folder, store, replace(SPEC, fingerprint="e" * 64)) == []
    assert store.profiles.list().items == ()
    assert store.directions.list().items == ()


def test_a_folder_without_demos_is_no_fault(store: Store, tmp_path: Path) -> None:
    assert import_demo(tmp_path, store, SPEC) == []


def test_what_was_stored_is_loaded_back(store: Store, folder: Path) -> None:
    import_demo(folder, store, SPEC)
    record = store.directions.get("cheerful")
    loaded = load_direction_blob(store.directions.read(record), record)
    assert loaded.reference == "cheerful@1"
    assert torch.equal(loaded.at(1)["vector"], torch.eye(8)[1])


FAULTS: dict[str, Any] = {
    "no room": InsufficientStorageError("full"),
    "no database": StoreUnavailableError("away"),
    "no permission": PermissionError("no"),
}


@pytest.mark.parametrize("call", ["blobs.put", "database.write", "database.reading"])
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_fails_the_server_starts_without_them(
    fault: str, call: str, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, logs: Any
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise FAULTS[fault]

    owner, name = call.split(".")
    with monkeypatch.context() as patched:
        patched.setattr(getattr(store, owner), name, fail)
        assert import_demo(folder, store, SPEC) == []
    assert [entry["event"] for entry in logs] == ["demo_not_loaded"]
    assert logs[0]["log_level"] == "warning"
    assert import_demo(folder, store, SPEC) == ["cheerful", "gloomy"], "the next start makes them"


def test_less_room_than_is_left_to_the_database_is_no_reason_to_end(
    tmp_path: Path, folder: Path, logs: Any
) -> None:
    store = Store.open(tmp_path / "full", load=load_direction_blob, low_water_bytes=2**62)
    assert import_demo(folder, store, SPEC) == []
    assert "no room" in logs[0]["reason"]
    store.close()


@pytest.mark.parametrize("damage", ["{", '{"cheerful": {}}'])
def test_a_damaged_folder_is_no_reason_to_end(
    damage: str, store: Store, folder: Path, logs: Any
) -> None:
    (folder / "profiles.json").write_text(damage)
    import_demo(folder, store, SPEC)
    assert store.profiles.list().items == ()


def test_the_same_model_in_another_data_type_gets_them_and_says_so(
    store: Store, folder: Path, logs: Any
) -> None:
    other = replace(SPEC, fingerprint="e" * 64)
    assert import_demo(folder, store, other, is_same_model=True) == ["cheerful", "gloomy"]
    assert [entry["event"] for entry in logs] == ["demo_of_another_data_type", "demo_loaded"]
    record = store.directions.get("cheerful")
    assert record.model_fingerprint is None
    assert record.provenance["made_for"] == SPEC.fingerprint
    assert store.profiles.get("cheerful").name == "cheerful"


def _write_of_width(folder: Path, width: int, fingerprint: str) -> Path:
    (folder / "directions").mkdir(parents=True)
    row = torch.ones(width)
    direction = Direction("cheerful", DirectionKind.VECTOR, Site.RESID_POST, (1,), {"vector": row})
    (folder / "directions" / "cheerful.safetensors").write_bytes(dump_direction(direction))
    metadata = {"model_fingerprint": fingerprint, "tags": ["demo"]}
    (folder / "directions" / "cheerful.json").write_text(json.dumps(metadata))
    profile = {"interventions": [{"operation": "add", "direction": "cheerful"}]}
    (folder / "profiles.json").write_text(json.dumps({"cheerful": profile}))
    return folder


def test_another_model_on_the_same_data_gets_versions_of_its_own(
    store: Store, folder: Path, tmp_path: Path
) -> None:
    import_demo(folder, store, SPEC)
    wide = replace(SPEC, fingerprint="b" * 64, hidden_size=16)
    other = _write_of_width(tmp_path / "wide", 16, wide.fingerprint)
    assert import_demo(other, store, wide) == ["cheerful"]
    record = store.profiles.get("cheerful")
    assert (record.version, record.directions) == (2, ("cheerful@2",))
    assert import_demo(other, store, wide) == []
    assert store.profiles.get("gloomy").version == 1


def test_a_demo_is_found_by_the_fingerprint_of_its_directions(folder: Path, tmp_path: Path) -> None:
    other = _write_of_width(tmp_path / "wide", 16, "b" * 64)
    assert find_demo([other, folder], SPEC) == folder
    assert find_demo([other, folder], replace(SPEC, fingerprint="b" * 64)) == other
    assert find_demo([other, folder], replace(SPEC, fingerprint="e" * 64)) is None
    assert find_demo([tmp_path / "none"], SPEC) is None
