"""Versions of directions: what makes one, what finds it, what keeps it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from server.store import SYSTEM, Actor, DirectionRecord, Store
from server.store.errors import (
    CorruptArtifactError,
    DirectionNotFoundError,
    InUseError,
    NameReservedError,
    PreconditionFailedError,
)
from steering.directions import Direction, DirectionKind
from steering.errors import FormatError, InvalidFieldError
from steering.sites import Site
from tests.server.store.samples import blob, direction, publish, put


def test_a_version_gives_back_what_was_uploaded(store: Store) -> None:
    value = direction(provenance={"method": "mean", "seed": 3}, tags=("b", "a"))
    actor = Actor(key_id="AbCd1234", request_id="req-1", address="127.0.0.1")
    record = store.directions.put(value, blob(value), by=actor).record
    assert store.directions.get("refusal", 1) == record
    assert store.directions.read(record) == blob(value)
    loaded = store.directions.load(record)
    assert (loaded.digest, loaded.reference) == (value.digest, "refusal@1")
    assert (record.created_by, record.tags) == ("AbCd1234", ("a", "b"))
    assert record.provenance == {"method": "mean", "seed": 3}
    assert record.norms == {"vector": pytest.approx(float(value.tensors["vector"].norm()))}
    assert record.created_at.utcoffset() is not None


def test_a_file_that_was_taken_in_and_cannot_be_read_any_more_is_a_fault_of_ours(
    sqlite_store: Store, tmp_path: Path
) -> None:
    def refuse(content: bytes, record: DirectionRecord) -> Direction:
        raise FormatError(f"{len(content)} bytes of {record.name} are in an old format")

    put(sqlite_store, direction())
    url = sqlite_store.database.url
    later = Store.open(tmp_path, url, load=refuse, low_water_bytes=0)
    with pytest.raises(CorruptArtifactError, match="old format"):
        later.directions.load(later.directions.get("refusal"))
    later.close()


def test_same_content_is_the_same_version(store: Store) -> None:
    first = put(store, direction(seed=1, tags=("x",)))
    other = put(store, direction(seed=2))
    again = put(store, direction(seed=1, tags=("y",), provenance={"note": "again"}))
    assert (first.created, other.created, again.created) == (True, True, False)
    assert [saved.record.version for saved in (first, other, again)] == [1, 2, 1]
    assert again.record.tags == ("x",)


@pytest.mark.parametrize(
    "change",
    [
        {"layers": (3,)},
        {"site": Site.MLP_OUT},
        {"requires": ("restricted",)},
        {"model_fingerprint": "m2"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_decides_meaning_or_use_makes_a_version(store: Store, change: dict) -> None:  # type: ignore[type-arg]
    put(store, direction())
    assert put(store, direction(**change)).record.version == 2


def test_names_do_not_share_versions(store: Store) -> None:
    put(store, direction("refusal"))
    assert put(store, direction("cheerful")).record.version == 1
    digests = {store.directions.get(name).sha256 for name in ("refusal", "cheerful")}
    assert len(digests) == 1


def test_archived_versions_stay_readable_and_keep_their_number(store: Store) -> None:
    value = direction(seed=1)
    put(store, value)
    put(store, direction(seed=2))
    (archived,) = store.directions.archive("refusal", 1, by=SYSTEM)
    assert archived.archived_at is not None
    with pytest.raises(DirectionNotFoundError):
        store.directions.get("refusal", 1)
    kept = store.directions.get("refusal", 1, include_archived=True)
    assert store.directions.load(kept).digest == value.digest
    assert put(store, value).record.version == 3
    shown = store.directions.versions("refusal").items
    everything = store.directions.versions("refusal", include_archived=True).items
    assert [r.version for r in shown] == [3, 2]
    assert [r.version for r in everything] == [3, 2, 1]


def test_archiving_a_name_takes_all_versions(store: Store) -> None:
    for seed in range(3):
        put(store, direction(seed=seed))
    assert len(store.directions.archive("refusal", by=SYSTEM)) == 3
    assert store.directions.list().items == ()
    for call in (store.directions.get, store.directions.versions):
        with pytest.raises(DirectionNotFoundError):
            call("refusal")
    with pytest.raises(DirectionNotFoundError):
        store.directions.archive("refusal", by=SYSTEM)


def test_a_used_version_cannot_be_archived(store: Store) -> None:
    put(store, direction(seed=1))
    put(store, direction(seed=2))
    publish(store, "careful", "refusal@1")
    publish(store, "stern", "refusal@1", "refusal@2")
    with pytest.raises(InUseError) as caught:
        store.directions.archive("refusal", by=SYSTEM)
    assert caught.value.users == ("careful@1", "stern@1")
    assert len(store.directions.versions("refusal").items) == 2
    store.profiles.archive("stern", by=SYSTEM)
    store.directions.archive("refusal", 2, by=SYSTEM)
    with pytest.raises(InUseError, match="careful@1"):
        store.directions.archive("refusal", 1, by=SYSTEM)


def test_a_monitor_is_a_use(store: Store) -> None:
    put(store, direction())
    publish(store, "watch", monitors=[{"direction": "refusal"}])
    with pytest.raises(InUseError, match="watch@1"):
        store.directions.archive("refusal", by=SYSTEM)


def test_filters_look_at_the_newest_version(store: Store) -> None:
    put(store, direction("a", 1, tags=("demo",)))
    put(store, direction("b", 1, tags=("demo",), site=Site.MLP_OUT))
    put(store, direction("b", 2, site=Site.ATTN_OUT))

    def names(**filters: object) -> list[str]:
        return [r.name for r in store.directions.list(**filters).items]  # type: ignore[arg-type]

    assert names() == ["a", "b"]
    assert names(tag="demo") == ["a"]
    assert names(site=Site.MLP_OUT) == []
    assert names(site=Site.ATTN_OUT, kind=DirectionKind.VECTOR) == ["b"]
    assert names(kind=DirectionKind.PROBE) == []


@pytest.mark.parametrize("name", ["none", "base", "default"])
def test_reserved_names_are_refused(sqlite_store: Store, name: str) -> None:
    with pytest.raises(NameReservedError, match=name):
        put(sqlite_store, direction(name))


@pytest.mark.parametrize(
    "name", ["", "A", "-a", ".a", "a/b", "../a", "a\n", "a" * 65, "é", "a\0", "a b", "a:b", "a@1"]
)
def test_names_outside_the_pattern_are_refused(sqlite_store: Store, name: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        put(sqlite_store, direction(name))
    assert caught.value.param == "name"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tags": ("ok", "bad\0")}, "tags[1]"),
        ({"tags": ("x" * 65,)}, "tags[0]"),
        ({"requires": ("superuser",)}, "requires[0]"),
        ({"provenance": {"loss": math.nan}}, "provenance"),
    ],
)
def test_metadata_that_cannot_be_kept_is_refused(
    sqlite_store: Store, fields: dict[str, object], param: str
) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        put(sqlite_store, direction(**fields))  # type: ignore[arg-type]
    assert caught.value.param == param
    assert sqlite_store.directions.list().items == ()


def test_an_etag_stops_the_second_writer(store: Store) -> None:
    seen = put(store, direction(seed=1)).record.etag
    value = direction(seed=2)
    after = store.directions.put(value, blob(value), by=SYSTEM, expected=seen).record.etag
    assert after != seen
    with pytest.raises(PreconditionFailedError, match="changed since"):
        store.directions.archive("refusal", by=SYSTEM, expected=seen)
    store.directions.archive("refusal", by=SYSTEM, expected=after)


def test_an_etag_of_nothing_fails(store: Store) -> None:
    value = direction()
    with pytest.raises(PreconditionFailedError, match="does not exist"):
        store.directions.put(value, blob(value), by=SYSTEM, expected="*")
    put(store, value)
    assert not store.directions.put(value, blob(value), by=SYSTEM, expected="*").created
