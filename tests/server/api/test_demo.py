"""Demo profiles are made once, on a model they fit, and never undo what people did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from server.registry.demo import import_demo
from server.registry.library import load_direction_blob
from server.store import SYSTEM, ProfileStatus, Store
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
    from dataclasses import replace

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
