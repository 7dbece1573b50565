"""Directions, profiles, aliases, keys, jobs and the audit log, kept between runs."""

from __future__ import annotations

from .audit import SYSTEM, Actor, AuditEvent
from .blobs.blobs import Blob
from .idempotency import KeptAnswer
from .jobs.pruning import PrunedJobs
from .jobs.record import ClaimedJob, JobEvent, JobRecord, JobSpec, JobStatus
from .jobs.runs import JobRuns
from .keys.keys import KeyStore
from .keys.record import KeyRecord, KeySpec
from .page import MAX_LIMIT, Page
from .registry.aliases import AliasRecord
from .registry.artifacts import ArtifactCheck, Collected
from .registry.profiles import ProfileStore
from .registry.records import DirectionRecord, ProfileRecord, ProfileStatus, SaveResult
from .store import Store

__all__ = [
    "MAX_LIMIT",
    "SYSTEM",
    "Actor",
    "AliasRecord",
    "ArtifactCheck",
    "AuditEvent",
    "Blob",
    "ClaimedJob",
    "Collected",
    "DirectionRecord",
    "JobEvent",
    "JobRecord",
    "JobRuns",
    "JobSpec",
    "JobStatus",
    "KeptAnswer",
    "KeyRecord",
    "KeySpec",
    "KeyStore",
    "Page",
    "ProfileRecord",
    "ProfileStatus",
    "ProfileStore",
    "PrunedJobs",
    "SaveResult",
    "Store",
]
