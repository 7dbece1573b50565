"""Claims on idempotency keys, on every database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from server.store import KeptAnswer, Store
from server.store.errors import (
    IdempotencyConflictError,
    IdempotencyPendingError,
    IdempotencyReplayError,
)
from server.store.idempotency import IDEMPOTENCY_WINDOW, IdempotencyStore
from server.store.tables import AnswerRow

from .conftest import Clock

ANSWER = KeptAnswer(201, {"etag": '"1"'}, b'{"name": "\xc3\xa4"}\x00')
SAME, OTHER = "a" * 64, "b" * 64


def num_rows(store: Store) -> int:
    with store.database.reading() as session:
        return session.scalars(select(func.count()).select_from(AnswerRow)).one()


def test_the_same_request_gets_the_same_answer(store: Store) -> None:
    kept = store.idempotency
    assert kept.claim("k1", "x", SAME) is None
    with pytest.raises(IdempotencyPendingError, match="not answered yet"):
        kept.claim("k1", "x", SAME)
    kept.keep("k1", "x", ANSWER)
    assert kept.claim("k1", "x", SAME) == kept.claim("k1", "x", SAME) == ANSWER


@pytest.mark.parametrize("is_answered", [False, True])
def test_another_request_is_a_conflict(store: Store, is_answered: bool) -> None:
    store.idempotency.claim("k1", "x", SAME)
    if is_answered:
        store.idempotency.keep("k1", "x", ANSWER)
    with pytest.raises(IdempotencyConflictError, match="a key of its own"):
        store.idempotency.claim("k1", "x", OTHER)


def test_callers_do_not_share_keys(store: Store) -> None:
    for caller in (None, "k1", "k2"):
        assert store.idempotency.claim(caller, "x", SAME) is None
        store.idempotency.keep(caller, "x", KeptAnswer(200, {}, str(caller).encode()))
    for caller in (None, "k1", "k2"):
        found = store.idempotency.claim(caller, "x", SAME)
        assert found is not None
        assert found.body == str(caller).encode()


def test_a_failed_request_may_be_sent_again_or_changed(store: Store) -> None:
    assert store.idempotency.claim("k1", "x", SAME) is None
    store.idempotency.release("k1", "x")
    assert store.idempotency.claim("k1", "x", OTHER) is None


def test_a_secret_is_not_given_again(store: Store) -> None:
    store.idempotency.claim("k1", "x", SAME)
    store.idempotency.keep("k1", "x", KeptAnswer(201, {}, None))
    with pytest.raises(IdempotencyReplayError, match="shown once"):
        store.idempotency.claim("k1", "x", SAME)


def test_keys_expire_and_their_rows_go(store: Store, clock: Clock) -> None:
    for key in ("x", "y"):
        store.idempotency.claim("k1", key, SAME)
        store.idempotency.keep("k1", key, ANSWER)
    clock.now += IDEMPOTENCY_WINDOW - timedelta(minutes=1)
    assert store.idempotency.claim("k1", "x", SAME) == ANSWER
    clock.now += timedelta(minutes=1)
    assert store.idempotency.claim("k1", "x", OTHER) is None
    assert num_rows(store) == 1
    store.idempotency.keep("k1", "y", ANSWER)
    assert num_rows(store) == 1, "an answer that comes too late is dropped"


def test_an_abandoned_claim_is_taken_up_by_one_and_no_later_claim_is(
    store: Store, clock: Clock
) -> None:
    keys = store.idempotency
    assert keys.claim(None, "k", "r" * 64) is None
    keys.abandon(None, "k")
    assert keys.claim(None, "k", "s" * 64) is None, "and it may have been mended"
    with pytest.raises(IdempotencyPendingError):
        keys.claim(None, "k", "s" * 64)
    keys.abandon(None, "k")
    clock.now += IDEMPOTENCY_WINDOW
    other = IdempotencyStore(store.database, clock)
    assert other.claim(None, "k", "s" * 64) is None, "another server's, after ours had expired"
    with pytest.raises(IdempotencyPendingError):
        keys.claim(None, "k", "s" * 64)
    keys.abandon("nobody", "k")


def test_one_of_many_at_once_does_the_request(store: Store) -> None:
    def claim(_index: int) -> str:
        try:
            return str(store.idempotency.claim("k1", "x", SAME))
        except IdempotencyPendingError:
            return "pending"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(claim, range(16)))
    assert sorted(outcomes) == ["None"] + ["pending"] * 15
