"""The audit log: written with the change, and any later change shows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from server.auth.permissions import LOCAL_USER, Permission
from server.store import SYSTEM, Actor, JobSpec, KeySpec, Store
from server.store.errors import AuditTamperedError, InUseError

from .samples import blob, direction, publish, put


def test_every_change_is_an_event_of_its_actor(store: Store) -> None:
    actor = Actor(key_id="AbCd1234", request_id="req-7", address="::1")
    value = direction()
    store.directions.put(value, blob(value), by=actor)
    publish(store, "careful", "refusal")
    store.aliases.put("live", "careful", by=SYSTEM)
    events = list(reversed(store.audit.list().items))
    assert [(e.sequence, e.action, e.subject) for e in events] == [
        (1, "direction.create", "direction refusal@1"),
        (2, "profile.create", "profile careful@1"),
        (3, "profile.publish", "profile careful@1"),
        (4, "alias.create", "alias live"),
    ]
    assert events[0].actor == actor
    assert events[0].after == value.digest
    assert store.audit.verify() == store.audit.sequence() == 4


def test_a_change_that_fails_leaves_no_event(store: Store) -> None:
    put(store, direction())
    publish(store, "careful", "refusal")
    before = store.audit.sequence()
    with pytest.raises(InUseError):
        store.directions.archive("refusal", by=SYSTEM)
    assert store.audit.sequence() == before


def test_what_changes_the_registry_is_told_from_what_does_not(store: Store) -> None:
    """Every operation of the store that makes an event, with what it changes."""
    value = direction()
    key = KeySpec("k", frozenset({Permission.CHAT}))
    job = JobSpec("fit", {}, "f" * 64, (), None)
    made: list[str] = []

    def create_key() -> None:
        made.append(store.keys.create(key, minter=LOCAL_USER, by=SYSTEM).record.id)

    def create_job() -> None:
        made.append(store.jobs.create(job, by=SYSTEM, max_queued=9).id)

    operations: list[tuple[bool, Callable[[], object]]] = [
        (True, lambda: store.directions.put(value, blob(value), by=SYSTEM)),
        (True, lambda: publish(store, "careful", "refusal")),
        (True, lambda: store.aliases.put("live", "careful", by=SYSTEM)),
        (False, lambda: store.audit.append("steering.restricted_use", "inline", by=SYSTEM)),
        (False, create_key),
        (False, lambda: store.keys.revoke(made[0], revoker=LOCAL_USER, by=SYSTEM)),
        (False, create_job),
        (False, lambda: store.jobs.cancel(made[1], by=SYSTEM)),
        (True, lambda: store.aliases.delete("live", by=SYSTEM)),
        (True, lambda: store.profiles.archive("careful", by=SYSTEM)),
        (True, lambda: store.directions.archive("refusal", by=SYSTEM)),
    ]
    for is_change, operation in operations:
        events, last, counted = (
            store.audit.sequence(),
            store.audit.last_change(),
            store.audit.changes,
        )
        operation()
        assert store.audit.sequence() > events
        assert (store.audit.last_change() > last) is is_change
        assert (store.audit.changes > counted) is is_change
    seen = {event.action.partition(".")[0] for event in store.audit.list(limit=200).items}
    assert seen == {"direction", "profile", "alias", "steering", "key", "job"}


def test_a_change_that_is_rolled_back_is_none(store: Store) -> None:
    def work(session: Session) -> None:
        store.audit.record(session, "profile.create", "profile x@1", by=SYSTEM)
        raise KeyError("no")

    with pytest.raises(KeyError):
        store.database.write(work)
    assert (store.audit.changes, store.audit.last_change()) == (0, 0)


def test_an_empty_log_is_sound(store: Store) -> None:
    assert (store.audit.sequence(), store.audit.verify()) == (0, 0)


@pytest.mark.parametrize(
    ("statement", "sequence"),
    [
        ("UPDATE audit_events SET subject = 'thing x' WHERE sequence = 3", 3),
        ("UPDATE audit_events SET key_id = 'someone' WHERE sequence = 1", 1),
        ("UPDATE audit_events SET detail = '[]' WHERE sequence = 2", 2),
        ("UPDATE audit_events SET hash = previous_hash WHERE sequence = 4", 4),
        ("DELETE FROM audit_events WHERE sequence = 2", 2),
        ("DELETE FROM audit_events WHERE sequence = 1", 1),
        ("DELETE FROM audit_events WHERE sequence = 5", 5),
        ("DELETE FROM audit_events", 1),
        ("UPDATE audit_head SET sequence = 4", 5),
        ("UPDATE audit_head SET sequence = 6", 6),
        ("DELETE FROM audit_head", 2),
    ],
)
def test_tampering_is_found(store: Store, statement: str, sequence: int) -> None:
    for index in range(5):
        store.audit.append("test", f"thing {index}", by=SYSTEM, detail={"n": index})
    assert store.audit.verify() == 5
    store.database.write(lambda session: session.execute(text(statement)))
    with pytest.raises(AuditTamperedError) as caught:
        store.audit.verify()
    assert caught.value.sequence == sequence
    assert store.verify().audit_fault == str(caught.value)
