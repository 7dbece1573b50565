"""Directions, profiles, aliases, keys, jobs and the audit log, kept between runs."""

from __future__ import annotations

from .aliases import AliasRecord, AliasStore
from .artifacts import DEFAULT_GRACE, ArtifactCheck, Artifacts, Collected
from .audit import SYSTEM, Actor, AuditEvent, AuditStore
from .blob_directory import BlobDirectory
from .blobs import Blob, BlobStore
from .direction_record import DirectionRecord
from .directions import DirectionLoader, DirectionStore
from .idempotency import IdempotencyStore, KeptAnswer
from .job_pruning import PrunedJobs
from .job_record import ClaimedJob, JobEvent, JobRecord, JobSpec, JobStatus
from .job_runs import JobRuns
from .jobs import JobStore
from .key_record import KeyRecord, KeySpec, MintedKey
from .keys import KeyStore
from .page import MAX_LIMIT, Page
from .profile_record import ProfileRecord, ProfileStatus
from .profiles import ProfileStore
from .saved import Saved
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
    "Saved",
    "Store",
    "StoreCheck",
]
