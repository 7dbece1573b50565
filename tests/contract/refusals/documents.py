"""One valid document for every route that has a body, and for every form of it."""

from __future__ import annotations

from typing import Any, Final

from .chats import ADD, CHATS, MONITOR
from .stored import DIRECTIONS, SITES, Case, as_base64, axis, direction
from .work import WORK

__all__ = ["CASES"]

_PROFILE: Final[dict[str, Any]] = {
    "name": "kind",
    "description": "A profile.",
    "interventions": [{**ADD, "layers": [1]}],
    "monitors": [MONITOR],
    "requires": ["restricted"],
    "max_strength": 2.0,
    "publish": True,
}

_ADMIN: Final = (
    Case("profiles", "/v1/steering/profiles", _PROFILE, skip=("layers", "scope", "schedule")),
    Case(
        "profiles: validate",
        "/v1/steering/profiles:validate",
        _PROFILE,
        skip=("interventions", "monitors"),
    ),
    Case("aliases", "/v1/steering/aliases/house", {"profile": "cheerful@1"}, method="PUT"),
    Case(
        "keys",
        "/v1/admin/keys",
        {
            "name": "reader",
            "scopes": ["read", "chat"],
            "profiles_allow": ["cheerful"],
            "default_profile": "cheerful",
            "requests_per_minute": 60,
            "expires_at": "2090-01-01T00:00:00Z",
        },
    ),
    Case(
        "directions",
        "/v1/steering/directions",
        direction("new", "vector", vector=as_base64(axis(0)), reference=axis(1)),
    ),
    *(
        Case(
            f"directions: {kind}",
            "/v1/steering/directions",
            {
                **direction("new", kind, **tensors),
                "site": SITES.get(kind, "resid_post"),
            },
            below=("tensors",),
        )
        for kind, tensors in DIRECTIONS.items()
        if kind != "vector"
    ),
    Case(
        "directions: a form",
        "/v1/steering/directions",
        {key: value for key, value in direction("new", "vector").items() if key != "tensors"},
        is_form=True,
    ),
)


CASES: Final[tuple[Case, ...]] = (*CHATS, *_ADMIN, *WORK)
"""Every document that is spoiled."""
