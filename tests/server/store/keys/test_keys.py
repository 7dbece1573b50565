"""API keys: what is stored, who may make which, and what is compared."""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from itertools import combinations
from pathlib import Path

import pytest

from server.auth.key_token import KeyToken
from server.auth.permissions import (
    LOCAL_USER,
    AuthenticationError,
    Permission,
    PermissionDeniedError,
    Principal,
)
from server.store import SYSTEM, KeySpec, Store
from server.store.errors import KeyNotFoundError
from server.store.keys.record import MintedKey
from steering.errors import InvalidFieldError
from tests.server.store.conftest import Clock

CHAT = frozenset({Permission.CHAT})
ADMIN = frozenset({Permission.ADMIN, Permission.CHAT})


def mint(store: Store, minter: Principal = LOCAL_USER, **fields: object) -> MintedKey:
    spec = KeySpec(**{"name": "test", "permissions": CHAT, **fields})  # type: ignore[arg-type]
    return store.keys.create(spec, minter=minter, by=SYSTEM)


def test_a_key_identifies_its_holder(store: Store) -> None:
    key = mint(
        store,
        name="app 1",
        profiles_allow=frozenset({"careful"}),
        default_profile="careful",
        requests_per_minute=60,
    )
    record = store.keys.authenticate(key.secret.encode())
    assert record.principal == Principal(
        key.record.id, "app 1", CHAT, frozenset({"careful"}), "careful", 60
    )
    assert store.keys.get(key.record.id).spec == key.record.spec


def test_the_secret_is_stored_nowhere_and_shown_once(sqlite_store: Store, tmp_path: Path) -> None:
    key = mint(sqlite_store)
    _, _, key_id, secret, checksum = key.secret.split("-")
    sqlite_store.keys.authenticate(key.secret.encode())
    sqlite_store.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert key_id.encode() in kept
    assert secret.encode() not in kept
    assert checksum.encode() not in kept
    assert secret not in repr(key) + repr(KeyToken.parse(key.secret.encode()))


def test_keys_do_not_repeat_and_have_their_form() -> None:
    tokens = [KeyToken.mint() for _ in range(200)]
    assert len({t.key_id for t in tokens}) == len({t.text for t in tokens}) == 200
    assert {len(t.text) for t in tokens} == {len("sk-cox-") + 8 + 1 + 43 + 1 + 6}
    assert all(KeyToken.parse(t.text.encode()) == t for t in tokens)


def test_one_wrong_character_fails_the_checksum() -> None:
    text = KeyToken.mint().text
    for index, character in enumerate(text):
        other = "b" if character == "a" else "a"
        assert KeyToken.parse(f"{text[:index]}{other}{text[index + 1 :]}".encode()) is None


def forged(key: MintedKey) -> bytes:
    """The id of `key` with the secret of another, and a good checksum."""
    while True:
        other = KeyToken.mint()
        body = f"sk-cox-{key.record.id}-{other.text.split('-')[3]}"
        from server.auth.key_token import _checksum

        return f"{body}-{_checksum(body.encode())}".encode()


def test_every_refusal_reads_the_same(store: Store, clock: Clock) -> None:
    expired = mint(store, expires_at=clock.now + timedelta(minutes=1))
    store.keys.authenticate(expired.secret.encode())
    clock.now += timedelta(minutes=2)
    revoked = mint(store)
    store.keys.revoke(revoked.record.id, revoker=LOCAL_USER, by=SYSTEM)
    tokens = [
        b"",
        b"sk-cox-",
        b"\xff\x00",
        expired.secret.encode()[:-1],
        b"x" * 100_000,
        KeyToken.mint().text.encode(),
        forged(expired),
        expired.secret.encode(),
        revoked.secret.encode(),
    ]
    messages = set()
    for token in tokens:
        with pytest.raises(AuthenticationError) as caught:
            store.keys.authenticate(token)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_an_unknown_id_is_compared_like_a_known_one(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = mint(sqlite_store)
    compared: list[tuple[type, int, type, int]] = []

    def spy(left: bytes, right: bytes) -> bool:
        compared.append((type(left), len(left), type(right), len(right)))
        return real(left, right)

    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", spy)
    for token in (KeyToken.mint().text.encode(), forged(key)):
        with pytest.raises(AuthenticationError):
            sqlite_store.keys.authenticate(token)
    sqlite_store.keys.authenticate(key.secret.encode())
    assert compared == [(bytes, 32, bytes, 32)] * 3


def test_revoking_is_final_and_at_once(store: Store) -> None:
    key = mint(store)
    store.keys.authenticate(key.secret.encode())
    first = store.keys.revoke(key.record.id, revoker=LOCAL_USER, by=SYSTEM)
    assert store.keys.revoke(key.record.id, revoker=LOCAL_USER, by=SYSTEM) == first
    with pytest.raises(AuthenticationError):
        store.keys.authenticate(key.secret.encode())
    with pytest.raises(KeyNotFoundError):
        store.keys.revoke("nobody00", revoker=LOCAL_USER, by=SYSTEM)
    assert [e.action for e in store.audit.list().items] == ["key.revoke", "key.create"]


def test_a_key_mints_only_what_it_holds(sqlite_store: Store) -> None:
    key = mint(sqlite_store, permissions=ADMIN)
    admin = sqlite_store.keys.authenticate(key.secret.encode()).principal
    mint(sqlite_store, admin, permissions=ADMIN)
    for scope in (Permission.RESTRICTED, Permission.INLINE, Permission.READ):
        with pytest.raises(PermissionDeniedError, match=scope):
            mint(sqlite_store, admin, permissions=frozenset({Permission.CHAT, scope}))
    plain = sqlite_store.keys.authenticate(mint(sqlite_store).secret.encode()).principal
    with pytest.raises(PermissionDeniedError, match="admin"):
        mint(sqlite_store, plain)
    assert len(sqlite_store.keys.list().items) == 3


def test_a_key_revokes_only_what_it_could_have_made(sqlite_store: Store) -> None:
    admin = sqlite_store.keys.authenticate(
        mint(sqlite_store, permissions=ADMIN).secret.encode()
    ).principal
    plain = sqlite_store.keys.authenticate(mint(sqlite_store).secret.encode()).principal
    for scopes in (subset for n in range(1, 6) for subset in combinations(Permission, n)):
        key = mint(sqlite_store, permissions=frozenset(scopes))
        with pytest.raises(PermissionDeniedError, match="admin"):
            sqlite_store.keys.revoke(key.record.id, revoker=plain, by=SYSTEM)
        if set(scopes) <= ADMIN:
            assert sqlite_store.keys.revoke(key.record.id, revoker=admin, by=SYSTEM).revoked_at
            continue
        with pytest.raises(PermissionDeniedError) as caught:
            sqlite_store.keys.revoke(key.record.id, revoker=admin, by=SYSTEM)
        assert caught.value.param == "key_id"
        assert sqlite_store.keys.get(key.record.id).revoked_at is None
        sqlite_store.keys.authenticate(key.secret.encode())


def test_an_allow_list_binds_the_keys_it_revokes(sqlite_store: Store) -> None:
    allow = frozenset({"a", "b"})
    key = mint(sqlite_store, permissions=ADMIN, profiles_allow=allow)
    admin = sqlite_store.keys.authenticate(key.secret.encode()).principal
    for wider in (None, frozenset({"a", "c"})):
        above = mint(sqlite_store, profiles_allow=wider).record.id
        with pytest.raises(PermissionDeniedError) as caught:
            sqlite_store.keys.revoke(above, revoker=admin, by=SYSTEM)
        assert caught.value.param == "key_id"
    below = mint(sqlite_store, profiles_allow=frozenset({"b"})).record.id
    assert sqlite_store.keys.revoke(below, revoker=admin, by=SYSTEM).revoked_at


def test_an_allow_list_binds_the_keys_it_mints(sqlite_store: Store) -> None:
    key = mint(sqlite_store, permissions=ADMIN, profiles_allow=frozenset({"a", "b"}))
    admin = sqlite_store.keys.authenticate(key.secret.encode()).principal
    mint(sqlite_store, admin, profiles_allow=frozenset({"b"}))
    for wider in (None, frozenset({"a", "c"})):
        with pytest.raises(PermissionDeniedError) as caught:
            mint(sqlite_store, admin, profiles_allow=wider)
        assert caught.value.param == "profiles_allow"


def test_a_revoked_key_still_counts_as_made(store: Store) -> None:
    assert not store.keys.exist()
    key = mint(store)
    assert store.keys.exist()
    store.keys.revoke(key.record.id, revoker=LOCAL_USER, by=SYSTEM)
    assert store.keys.exist()


def test_use_is_noted_of_keys_that_are_not_revoked(store: Store, clock: Clock) -> None:
    keys = [mint(store) for _ in range(3)]
    ids = [key.record.id for key in keys]
    store.keys.revoke(ids[1], revoker=LOCAL_USER, by=SYSTEM)
    store.keys.note_use(ids[:2])
    assert [store.keys.get(id_).last_used_at for id_ in ids] == [clock.now, None, None]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": " "}, "name"),
        ({"name": "a\x1b[31m"}, "name"),
        ({"permissions": frozenset()}, "scopes"),
        ({"permissions": frozenset({"root"})}, "scopes"),
        ({"profiles_allow": frozenset({"../x"})}, "profiles_allow"),
        ({"default_profile": "A"}, "default_profile"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"expires_at": datetime(2030, 1, 1)}, "expires_at"),
    ],
)
def test_a_bad_spec_names_its_field(fields: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        KeySpec(**{"name": "test", "permissions": CHAT, **fields})  # type: ignore[arg-type]
    assert caught.value.param == param
