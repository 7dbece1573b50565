"""What `coxswain store` prints: a line for every find, and a summary."""

from __future__ import annotations

from collections.abc import Iterator

from server.store import ArtifactCheck, Blob, Collected, PrunedJobs

__all__ = ["checked", "collected", "pruned"]


def checked(found: ArtifactCheck, audit_fault: str | None) -> Iterator[str]:
    """The lines of `coxswain store check`."""
    for word, digests in (("damaged", found.damaged), ("missing", found.missing)):
        for digest, directions in digests.items():
            yield f"{word} {digest} of {', '.join(directions)}"
    for blob in found.orphans:
        yield _orphan("orphaned", blob)
    if audit_fault is not None:
        yield f"audit log: {audit_fault}"
    yield (
        f"{_count(found.num_blobs, 'artifact')} read: {len(found.damaged)} damaged, "
        f"{len(found.missing)} missing; beside them {_count(len(found.orphans), 'orphan')}, "
        f"{_count(found.num_temporary, 'temporary file')}"
    )


def collected(found: Collected, *, dry_run: bool) -> Iterator[str]:
    """The lines of `coxswain store collect`."""
    verb = "would remove" if dry_run else "removed"
    for blob in found.orphans:
        yield _orphan(verb, blob)
    size_bytes = sum(blob.size_bytes for blob in found.orphans)
    yield (
        f"{verb} {_count(len(found.orphans), 'orphan')} of {size_bytes:,} bytes and "
        f"{_count(found.num_temporary, 'temporary file')}; left "
        f"{_count(found.num_spared, 'orphan')} too young to be removed"
    )


def pruned(found: PrunedJobs, days: float, *, dry_run: bool) -> str:
    """The line of `coxswain store collect` about jobs that ended more than `days` ago."""
    verb = "would remove" if dry_run else "removed"
    return (
        f"{verb} {_count(len(found.removed), 'job')} ended more than {days:g} days ago; left "
        f"{_count(found.num_spared, 'job')} as old that a direction came from"
    )


def _orphan(word: str, blob: Blob) -> str:
    return f"{word} {blob.digest}, {blob.size_bytes:,} bytes of {blob.stored_at:%Y-%m-%d %H:%M} UTC"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
