"""Stored things as JSON."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from server.store import (
    AliasRecord,
    AuditEvent,
    DirectionRecord,
    JobEvent,
    JobRecord,
    KeyRecord,
    Page,
    ProfileRecord,
)

__all__ = ["alias", "audit_event", "direction", "job", "job_event", "key", "page", "profile"]

_T = TypeVar("_T")


def page(found: Page[_T], write: Callable[[_T], dict[str, Any]]) -> dict[str, Any]:
    """A page of a listing."""
    return {
        "object": "list",
        "data": [write(item) for item in found.items],
        "has_more": found.next_cursor is not None,
        "next_cursor": found.next_cursor,
    }


def direction(record: DirectionRecord) -> dict[str, Any]:
    """A direction version, without its tensors."""
    return {
        "object": "steering.direction",
        "name": record.name,
        "version": record.version,
        "reference": record.reference,
        "kind": record.kind.value,
        "site": record.site.value,
        "layers": list(record.layers),
        "width": record.width,
        "norms": dict(record.norms),
        "sha256": record.sha256,
        "size_bytes": record.size_bytes,
        "digest": record.digest,
        "model_fingerprint": record.model_fingerprint,
        "requires": list(record.requires),
        "provenance": dict(record.provenance),
        "tags": list(record.tags),
        "is_available": record.is_available,
        "created_at": _seconds(record.created_at),
        "created_by": record.created_by,
        "archived_at": _seconds(record.archived_at),
    }


def profile(record: ProfileRecord) -> dict[str, Any]:
    """A profile version."""
    return {
        "object": "steering.profile",
        "name": record.name,
        "version": record.version,
        "reference": record.reference,
        "status": record.status.value,
        **record.profile.to_dict(),
        "requires": list(record.requires),
        "directions": list(record.directions),
        "unavailable": list(record.unavailable),
        "fingerprint": record.fingerprint,
        "model_fingerprint": record.model_fingerprint,
        "resid_norms": {
            f"{point.site.value}.{point.layer}": norm
            for point, norm in sorted(record.resid_norms.items())
        },
        "created_at": _seconds(record.created_at),
        "created_by": record.created_by,
        "published_at": _seconds(record.published_at),
        "archived_at": _seconds(record.archived_at),
    }


def alias(record: AliasRecord) -> dict[str, Any]:
    """An alias and where it points."""
    return {
        "object": "steering.alias",
        "alias": record.name,
        "profile": record.target,
        "created_at": _seconds(record.created_at),
        "updated_at": _seconds(record.updated_at),
        "updated_by": record.updated_by,
    }


def key(record: KeyRecord) -> dict[str, Any]:
    """A key without its secret."""
    spec = record.spec
    return {
        "object": "key",
        "id": record.id,
        "name": spec.name,
        "scopes": sorted(spec.scopes),
        "profiles_allow": None if spec.profiles_allow is None else sorted(spec.profiles_allow),
        "default_profile": spec.default_profile,
        "requests_per_minute": spec.requests_per_minute,
        "expires_at": _seconds(spec.expires_at),
        "created_at": _seconds(record.created_at),
        "created_by": record.created_by,
        "revoked_at": _seconds(record.revoked_at),
        "last_used_at": _seconds(record.last_used_at),
    }


def job(record: JobRecord) -> dict[str, Any]:
    """A job, without its request."""
    return {
        "object": "steering.job",
        "id": record.id,
        "kind": record.kind,
        "name": record.name,
        "status": record.status.value,
        "progress": record.fraction,
        "message": record.message,
        "result": None if record.result is None else dict(record.result),
        "error": None if record.error is None else record.error["error"],
        "attempts": record.attempts,
        "num_events": record.num_events,
        "requires": list(record.requires),
        "rerun_of": record.rerun_of,
        "model_fingerprint": record.model_fingerprint,
        "created_at": _seconds(record.created_at),
        "created_by": record.created_by,
        "started_at": _seconds(record.started_at),
        "finished_at": _seconds(record.finished_at),
    }


def job_event(job_id: str, event: JobEvent) -> dict[str, Any]:
    """One step of a job's progress."""
    return {
        "object": "steering.job.event",
        "job": job_id,
        "number": event.number,
        "at": event.at.isoformat(),
        "status": event.status.value,
        "progress": event.fraction,
        "message": event.message,
    }


def audit_event(event: AuditEvent) -> dict[str, Any]:
    """One line of the audit log."""
    return {
        "object": "audit.event",
        "sequence": event.sequence,
        "at": event.at.isoformat(),
        "key_id": event.actor.key_id,
        "request_id": event.actor.request_id,
        "address": event.actor.address,
        "action": event.action,
        "subject": event.subject,
        "before": event.before,
        "after": event.after,
        "detail": dict(event.detail),
        "previous_hash": event.previous_hash,
        "hash": event.hash,
    }


def _seconds(moment: datetime | None) -> int | None:
    """Unix time, as the OpenAI API writes times."""
    return None if moment is None else int(moment.timestamp())
