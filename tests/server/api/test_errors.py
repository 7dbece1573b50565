"""Every error of the domain has its place in the one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import server.api.http.errors
import server.auth.permissions
import server.engine.errors
import server.pools
import server.resolver.errors
import server.store.errors
import steering.errors
from server.api.http.error_table import ERROR_TABLE, reply_to
from server.resolver.errors import InvalidProfileError, Problem

BASES = (
    server.api.http.errors.RequestError,
    server.auth.permissions.AuthError,
    server.engine.errors.EngineError,
    server.pools.PoolFullError,
    server.resolver.errors.InvalidSteeringError,
    server.store.errors.StoreError,
    steering.errors.SteeringError,
)
TYPES = {
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "rate_limit_error",
    "server_error",
    "service_unavailable_error",
}


def descendants(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for child in kind.__subclasses__():
        yield from descendants(child)


_SPENT = server.auth.permissions.Allowance(limit=3, remaining=0, reset_seconds=47.0)
KINDS = sorted({kind for base in BASES for kind in descendants(base)}, key=lambda k: k.__name__)


def instance(kind: Any) -> Exception:
    """One of it, whatever its own arguments are."""
    special: dict[str, Callable[[], Exception]] = {
        "AuthenticationError": lambda: kind(),
        "WrongMethodError": lambda: kind("m", allow="GET"),
        "NonFiniteOutputError": lambda: kind("m", is_steered=False),
        "InUseError": lambda: kind("m", users=["p@1"]),
        "AuditTamperedError": lambda: kind("m", sequence=3),
        "RateLimitedError": lambda: kind("m", retry_after_seconds=1, allowance=_SPENT),
        "InvalidProfileError": lambda: InvalidProfileError([Problem("c", "p", "m")]),
    }
    return special.get(kind.__name__, lambda: kind("m"))()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_row(kind: type[Exception]) -> None:
    assert any(issubclass(kind, row.kind) for row in ERROR_TABLE)
    for path in ("/v1/chat/completions", "/v1/steering/profiles", "/v1/admin/keys"):
        reply = reply_to(instance(kind), path)
        assert 400 <= reply.status <= 599
        assert reply.type in TYPES
        assert reply.code
        assert set(reply.body()["error"]) >= {"message", "type", "param", "code"}
        assert (reply.status >= 500) is (
            reply.type in ("server_error", "service_unavailable_error")
        )


@pytest.mark.parametrize("row", ERROR_TABLE, ids=lambda row: row.kind.__name__)
def test_every_row_is_reached(row: object) -> None:
    kind = row.kind  # type: ignore[attr-defined]
    assert any(next(r for r in ERROR_TABLE if issubclass(k, r.kind)) is row for k in KINDS), kind


def test_codes_are_unique_to_a_meaning() -> None:
    """Two classes share a code only where a client need not tell them apart."""
    shared = {"rate_limit_exceeded", "profile_unavailable", "server_error", "not_found"}
    shared |= {"invalid_steering"}
    seen: dict[str, type[Exception]] = {}
    for kind in KINDS:
        code = getattr(instance(kind), "code", "")
        if code in shared or kind is InvalidProfileError:
            continue
        assert code not in seen or issubclass(kind, seen[code]) or issubclass(seen[code], kind)
        seen[code] = kind


@pytest.mark.parametrize(
    "error", [RuntimeError("secret"), OSError(28, "secret"), KeyError("secret")]
)
def test_what_nobody_foresaw_says_nothing(error: Exception) -> None:
    reply = reply_to(error, "/v1/models")
    assert (reply.status, reply.code) == (500, "server_error")
    assert "secret" not in reply.message


def test_steering_faults_are_400_for_chats_and_422_for_admins() -> None:
    error = steering.errors.ZeroVectorError("zero", param="tensors.vector")
    assert reply_to(error, "/v1/chat/completions").status == 400
    assert reply_to(error, "/v1/completions").status == 400
    assert reply_to(error, "/v1/steering/directions").status == 422


def test_a_broken_request_is_retried_only_where_that_may_help() -> None:
    errors = server.engine.errors
    steered = errors.NonFiniteOutputError("NaN", is_steered=True)
    assert reply_to(steered, "/v1/chat/completions").headers["x-should-retry"] == "false"
    assert reply_to(errors.EngineDeadError("x"), "/").headers["x-should-retry"] == "true"
    assert "retry-after" in reply_to(errors.QueueFullError("x"), "/").headers
    limited = server.auth.permissions.RateLimitedError("x", retry_after_seconds=7, allowance=_SPENT)
    assert reply_to(limited, "/").headers["retry-after"] == "7"
