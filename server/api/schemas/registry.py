"""Bodies of the admin routes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from .fields import Wire

__all__ = ["AliasTarget", "KeyRequest", "ProfileDraft"]

_Name = Annotated[str, Field(max_length=256)]


def _moment(value: Any) -> Any:
    """JSON has no times; an ISO 8601 text is one."""
    if not isinstance(value, str):
        raise ValueError("expected a time such as 2030-01-01T00:00:00Z")
    return datetime.fromisoformat(value)


class ProfileDraft(Wire):
    """A profile to check or save; its parts are read by `steering.profiles`."""

    name: _Name
    description: str = ""
    interventions: list[Any] = Field(default_factory=list)
    monitors: list[Any] = Field(default_factory=list)
    requires: list[str] = Field(default_factory=list)
    max_strength: float | None = None
    publish: bool = False

    def document(self) -> dict[str, Any]:
        """What `Profile.from_dict` reads."""
        return self.model_dump(exclude={"name", "publish"}, exclude_none=True)


class AliasTarget(Wire):
    """Where an alias is to point: `name` follows the newest version, `name@2` does not."""

    profile: _Name


class KeyRequest(Wire):
    """A key to make."""

    name: _Name
    scopes: list[str]
    profiles_allow: list[_Name] | None = None
    default_profile: _Name | None = None
    requests_per_minute: int | None = None
    expires_at: Annotated[datetime, BeforeValidator(_moment)] | None = None
