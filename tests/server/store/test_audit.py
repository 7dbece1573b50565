"""The audit log: written with the change, and any later change shows."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from server.store import SYSTEM, Actor, Store
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
