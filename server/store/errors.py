"""The errors of the store, as types a caller can tell apart.

StoreError
|-- NotFoundError                 nothing has that name, version or id
|   |-- DirectionNotFoundError
|   |-- ProfileNotFoundError
|   |-- AliasNotFoundError
|   |-- KeyNotFoundError
|   `-- JobNotFoundError
|-- NameReservedError             a name the server keeps for itself
|-- InvalidCursorError            a cursor that this listing did not give out
|-- ConflictError                 the change does not fit what is stored
|   |-- NameTakenError            an alias and a profile would share one name
|   |-- NotPublishedError         a draft where a published version is needed
|   |-- InUseError                something that is still used cannot be archived
|   |-- JobActiveError            the job waits or runs
|   |-- JobFinishedError          the job has ended
|   |-- JobLostError              the job is no longer this server's to run
|   |-- IdempotencyConflictError  the idempotency key stands for another request
|   |-- IdempotencyPendingError   the request with that key is not answered yet
|   `-- IdempotencyReplayError    its answer held a secret and cannot be given again
|-- JobQueueFullError             too many jobs wait already
|-- PreconditionFailedError       somebody changed it since it was read
|-- ProfileUnavailableError       a direction of the profile is quarantined
|-- CorruptArtifactError          stored bytes are not those that were uploaded
|-- InsufficientStorageError      no room left to write
|-- StoreUnavailableError         the database cannot be reached, or is busy too long
|   |-- StoreBusyError            too much waits for the store already
|   `-- StoreReplacedError        the database's file was taken away under it
|-- SchemaError                   the database belongs to another version of the server
`-- AuditTamperedError            the audit chain is broken
"""

from __future__ import annotations

from collections.abc import Sequence

from steering.errors import CoxswainError


class StoreError(CoxswainError):
    """The store cannot do what was asked."""

    code = "store_error"


class NotFoundError(StoreError):
    """Nothing has that name, version or id."""

    code = "not_found"


class DirectionNotFoundError(NotFoundError):
    """No direction has that name, or not that version."""

    code = "direction_not_found"


class ProfileNotFoundError(NotFoundError):
    """No profile or alias has that name, or not that version."""

    code = "profile_not_found"


class AliasNotFoundError(NotFoundError):
    """No alias has that name."""

    code = "alias_not_found"


class KeyNotFoundError(NotFoundError):
    """No API key has that id."""

    code = "key_not_found"


class JobNotFoundError(NotFoundError):
    """No job has that id."""

    code = "job_not_found"


class NameReservedError(StoreError):
    """The server keeps this name for itself."""

    code = "name_reserved"


class InvalidCursorError(StoreError):
    """The cursor was not given out by this listing with these filters."""

    code = "invalid_cursor"


class ConflictError(StoreError):
    """The change does not fit what is stored."""

    code = "conflict"


class NameTakenError(ConflictError):
    """Profiles and aliases share one namespace, and the other kind has this name."""

    code = "name_taken"


class NotPublishedError(ConflictError):
    """A draft was named where a published version is needed."""

    code = "not_published"


class InUseError(ConflictError):
    """Something that is still used cannot be archived.

    Attributes:
        users: What uses it: `profile@version` for a direction, alias names for a profile.
    """

    code = "in_use"

    def __init__(self, message: str, *, users: Sequence[str], param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.users = tuple(users)


class JobActiveError(ConflictError):
    """The job waits or runs, and only one that has ended can be resumed."""

    code = "job_active"


class JobFinishedError(ConflictError):
    """The job has ended in a way that leaves nothing to cancel or resume."""

    code = "job_finished"


class JobQueueFullError(StoreError):
    """Too many jobs wait already."""

    code = "job_queue_full"


class JobLostError(ConflictError):
    """The job was cancelled, or another server has it; nothing more is stored for it here."""

    code = "job_lost"


class IdempotencyConflictError(ConflictError):
    """The idempotency key stands for another request."""

    code = "idempotency_conflict"


class IdempotencyPendingError(ConflictError):
    """The request with that key is not answered yet, or its server died before it was."""

    code = "idempotency_in_progress"


class IdempotencyReplayError(ConflictError):
    """The request with that key was answered with a secret, which is shown once."""

    code = "idempotency_replayed"


class PreconditionFailedError(StoreError):
    """The expected etag is not the present one."""

    code = "precondition_failed"


class ProfileUnavailableError(StoreError):
    """A direction of the profile failed verification and is quarantined."""

    code = "profile_unavailable"


class CorruptArtifactError(StoreError):
    """Stored bytes are missing, or not those that were uploaded."""

    code = "corrupt_artifact"


class InsufficientStorageError(StoreError):
    """There is no room left to write."""

    code = "insufficient_storage"


class StoreUnavailableError(StoreError):
    """The database cannot be reached, is not a database, or was busy too long."""

    code = "store_unavailable"


class StoreBusyError(StoreUnavailableError):
    """Too many requests wait for the store already, or this one has waited too long."""

    code = "store_busy"


class StoreReplacedError(StoreUnavailableError):
    """The database's file was removed or replaced while it was open."""

    code = "store_replaced"


class SchemaError(StoreError):
    """The database belongs to another version of the server."""

    code = "schema_mismatch"


class AuditTamperedError(StoreError):
    """The audit chain is broken.

    Attributes:
        sequence: Number of the first event that does not fit.
    """

    code = "audit_tampered"

    def __init__(self, message: str, *, sequence: int) -> None:
        super().__init__(message)
        self.sequence = sequence
