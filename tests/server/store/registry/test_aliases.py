"""Aliases: one namespace with profiles, atomic moves, resolution."""

from __future__ import annotations

import pytest

from server.store import SYSTEM, Store
from server.store.errors import (
    AliasNotFoundError,
    NameReservedError,
    NameTakenError,
    NotPublishedError,
    PreconditionFailedError,
    ProfileNotFoundError,
    ProfileUnavailableError,
)
from steering.errors import InvalidFieldError
from tests.server.store.samples import blob, direction, profile, publish, put


def test_an_alias_follows_or_stays(store: Store) -> None:
    publish(store, description="1")
    store.aliases.put("following", "careful", by=SYSTEM)
    store.aliases.put("pinned", "careful", 1, by=SYSTEM)
    publish(store, description="2")
    assert store.aliases.resolve("following").reference == "careful@2"
    assert store.aliases.resolve("pinned").reference == "careful@1"
    assert store.aliases.resolve("careful@1").reference == "careful@1"
    assert store.aliases.get("pinned").target == "careful@1"


def test_a_move_is_audited_once(store: Store) -> None:
    publish(store, "careful")
    publish(store, "cheerful")
    made = store.aliases.put("live", "careful", by=SYSTEM)
    moved = store.aliases.put("live", "cheerful", 1, by=SYSTEM)
    same = store.aliases.put("live", "cheerful", 1, by=SYSTEM)
    assert moved == same
    assert moved.etag != made.etag
    assert moved.created_at == made.created_at < moved.updated_at
    (event,) = store.audit.list(action="alias.move").items
    assert (event.before, event.after) == ("careful", "cheerful@1")


def test_profiles_and_aliases_share_names(store: Store) -> None:
    publish(store, "careful")
    with pytest.raises(NameTakenError, match="a profile already"):
        store.aliases.put("careful", "careful", by=SYSTEM)
    store.aliases.put("live", "careful", by=SYSTEM)
    with pytest.raises(NameTakenError, match="an alias already"):
        publish(store, "live")
    with pytest.raises(ProfileNotFoundError):
        store.profiles.get("live", include_drafts=True)


def test_a_deleted_alias_frees_its_name(store: Store) -> None:
    publish(store, "careful")
    before = store.aliases.put("live", "careful", by=SYSTEM)
    store.aliases.delete("live", by=SYSTEM)
    with pytest.raises(AliasNotFoundError):
        store.aliases.get("live")
    with pytest.raises(AliasNotFoundError):
        store.aliases.delete("live", by=SYSTEM)
    again = store.aliases.put("live", "careful", by=SYSTEM)
    assert again.etag != before.etag
    store.aliases.delete("live", by=SYSTEM)
    assert publish(store, "live").version == 1


def test_an_archived_profile_keeps_its_name(store: Store) -> None:
    publish(store, "careful")
    publish(store, "other")
    store.profiles.archive("careful", by=SYSTEM)
    with pytest.raises(NameTakenError):
        store.aliases.put("careful", "other", by=SYSTEM)


def test_the_target_must_be_published(store: Store) -> None:
    store.profiles.save(profile("careful", description="1"), by=SYSTEM)
    for version in (None, 1):
        with pytest.raises(NotPublishedError):
            store.aliases.put("live", "careful", version, by=SYSTEM)
    with pytest.raises(ProfileNotFoundError, match="missing@2"):
        store.aliases.put("live", "missing", 2, by=SYSTEM)
    assert store.aliases.list().items == ()


def test_an_alias_of_an_alias_is_no_profile(store: Store) -> None:
    publish(store, "careful")
    store.aliases.put("live", "careful", by=SYSTEM)
    with pytest.raises(ProfileNotFoundError):
        store.aliases.put("other", "live", by=SYSTEM)


def test_an_etag_stops_the_second_writer(store: Store) -> None:
    publish(store, "careful")
    publish(store, "cheerful")
    seen = store.aliases.put("live", "careful", by=SYSTEM).etag
    store.aliases.put("live", "cheerful", by=SYSTEM, expected=seen)
    with pytest.raises(PreconditionFailedError):
        store.aliases.put("live", "careful", by=SYSTEM, expected=seen)
    with pytest.raises(PreconditionFailedError):
        store.aliases.delete("live", by=SYSTEM, expected=seen)
    assert store.aliases.get("live").target == "cheerful"


def test_what_cannot_be_resolved_says_why(store: Store) -> None:
    publish(store, "careful")
    store.aliases.put("live", "careful", by=SYSTEM)
    with pytest.raises(ProfileNotFoundError, match="aliases have no versions"):
        store.aliases.resolve("live@1")
    with pytest.raises(ProfileNotFoundError):
        store.aliases.resolve("careful@2")
    with pytest.raises(ProfileNotFoundError):
        store.aliases.resolve("missing")
    for text in ("careful@0", "careful@", "Careful", "a@b", "", "careful@01"):
        with pytest.raises(InvalidFieldError):
            store.aliases.resolve(text)


def test_reserved_names_cannot_be_aliases(store: Store) -> None:
    publish(store, "careful")
    with pytest.raises(NameReservedError):
        store.aliases.put("default", "careful", by=SYSTEM)


def test_a_profile_with_a_damaged_direction_is_unavailable(store: Store) -> None:
    value = direction()
    record = put(store, value).record
    publish(store, "careful", "refusal")
    store.blobs.quarantine(record.sha256)
    assert store.verify().profiles == ("careful@1",)
    with pytest.raises(ProfileUnavailableError, match="refusal@1"):
        store.aliases.resolve("careful")
    store.directions.put(value, blob(value), by=SYSTEM)
    assert store.aliases.resolve("careful").is_available
