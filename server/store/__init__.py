"""Directions, profiles, aliases, keys, jobs and the audit log, kept between runs."""

from __future__ import annotations

from .audit import SYSTEM, Actor, AuditEvent, AuditStore
from .blobs.blobs import Blob, BlobStore
from .blobs.directory import BlobDirectory
from .idempotency import IdempotencyStore, KeptAnswer
from .jobs.jobs import JobStore
from .jobs.pruning import PrunedJobs
from .jobs.record import ClaimedJob, JobEvent, JobRecord, JobSpec, JobStatus
from .jobs.runs import JobRuns
from .keys.keys import KeyStore
from .keys.record import KeyRecord, KeySpec, MintedKey
from .page import MAX_LIMIT, Page
from .registry.aliases import AliasRecord, AliasStore
from .registry.artifacts import DEFAULT_GRACE, ArtifactCheck, Artifacts, Collected
from .registry.directions import DirectionLoader, DirectionStore
from .registry.profiles import ProfileStore
from .registry.records import DirectionRecord, ProfileRecord, ProfileStatus, SaveResult
from .store import Store, StoreCheck

__all__ = [
    "DEFAULT_GRACE",
    "MAX_LIMIT",
    "SYSTEM",
    "Actor",
    "AliasRecord",
    "AliasStore",
    "ArtifactCheck",
    "Artifacts",
    "AuditEvent",
    "AuditStore",
    "Blob",
    "BlobDirectory",
    "BlobStore",
    "ClaimedJob",
    "Collected",
    "DirectionLoader",
    "DirectionRecord",
    "DirectionStore",
    "IdempotencyStore",
    "JobEvent",
    "JobRecord",
    "JobRuns",
    "JobSpec",
    "JobStatus",
    "JobStore",
    "KeptAnswer",
    "KeyRecord",
    "KeySpec",
    "KeyStore",
    "MintedKey",
    "Page",
    "ProfileRecord",
    "ProfileStatus",
    "ProfileStore",
    "PrunedJobs",
    "SaveResult",
    "Store",
    "StoreCheck",
]
