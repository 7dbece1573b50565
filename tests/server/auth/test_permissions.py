"""Scopes and allow-lists of a caller."""

from __future__ import annotations

import itertools

import pytest

from server.auth.permissions import (
    LOCAL_USER,
    AuthenticationError,
    Permission,
    PermissionDeniedError,
    Principal,
    ProfileNotAllowedError,
)


def caller(*permissions: Permission, profiles: frozenset[str] | None = None) -> Principal:
    return Principal("AbCd1234", "app", frozenset(permissions), profiles_allow=profiles)


@pytest.mark.parametrize(("held", "asked"), list(itertools.product(Permission, Permission)))
def test_no_scope_implies_another(held: Permission, asked: Permission) -> None:
    if held is asked:
        caller(held).require(asked)
        return
    with pytest.raises(PermissionDeniedError) as caught:
        caller(held).require(asked, param="steering")
    assert caught.value.param == "steering"
    assert held in str(caught.value)
    assert asked in str(caught.value)


def test_every_scope_asked_for_is_needed() -> None:
    principal = caller(Permission.CHAT, Permission.READ)
    principal.require()
    principal.require("chat", "read")
    with pytest.raises(PermissionDeniedError, match="this needs restricted"):
        principal.require("chat", "restricted")
    with pytest.raises(PermissionDeniedError, match="no-such-scope"):
        principal.require("no-such-scope")


def test_an_allow_list_is_closed() -> None:
    caller(Permission.CHAT).require_profile("anything")
    some = caller(Permission.CHAT, profiles=frozenset({"careful"}))
    some.require_profile("careful")
    with pytest.raises(ProfileNotAllowedError, match="careful"):
        some.require_profile("wild")
    with pytest.raises(ProfileNotAllowedError, match="none"):
        caller(Permission.CHAT, profiles=frozenset()).require_profile("careful")


def test_salts_separate_keys_and_last() -> None:
    one = Principal("AbCd1234", "a", frozenset())
    same = Principal("AbCd1234", "renamed", frozenset(Permission))
    other = Principal("AbCd1235", "a", frozenset())
    assert one.cache_salt == same.cache_salt != other.cache_salt
    assert len(one.cache_salt) == 16
    assert LOCAL_USER.cache_salt == b""


def test_the_local_user_may_do_everything() -> None:
    LOCAL_USER.require(*Permission)
    LOCAL_USER.require_profile("anything")


def test_a_refusal_does_not_say_why() -> None:
    assert "expired" not in str(AuthenticationError())
    assert AuthenticationError().code == "invalid_api_key"
