"""Tensors in an object store: S3, Google Cloud Storage or Azure, through obstore."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore, from_url

from server.store.errors import (
    CorruptArtifactError,
    InsufficientStorageError,
    StoreError,
    StoreUnavailableError,
)

from .blobs import DIGEST_PATTERN, Blob, corrupt

if TYPE_CHECKING:
    from obstore.store import RetryConfig

_FULL: Final = ("os error 28", "os error 122", "StorageFull", "QuotaExceeded", "507 ")
_QUARANTINE: Final = "quarantine"
_RETRIES: Final[RetryConfig] = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}


class BlobObjects:
    """A `BlobStore` of objects, each under its digest.

    An object is created whole or not at all, and only where there is none; one that is there is
    read, and written over only if it is damaged. Errors keep nothing of what the service said but
    its kind: its answers may quote addresses with signatures and names of keys.
    """

    def __init__(self, store: ObjectStore) -> None:
        """Use a store rooted at the prefix that holds the artifacts and nothing else."""
        self._store = store

    @classmethod
    def at(cls, url: str) -> BlobObjects:
        """Artifacts under the bucket and prefix of `url`; credentials come from the environment.

        Raises:
            StoreError: The URL, or the environment beside it, is not enough to go by.
        """
        try:
            # Client options given here would replace those of the environment (AWS_ALLOW_HTTP).
            return cls(from_url(url, retry_config=_RETRIES))
        except (BaseError, ValueError) as error:
            raise StoreError(
                f"the artifacts cannot be kept at {url!r} ({type(error).__name__}); expected "
                "s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, and the account "
                "and credentials in the environment"
            ) from None

    def put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        with _translated("written"):
            try:
                obstore.put(self._store, digest, content, mode="create")
            except AlreadyExistsError:
                if not self.is_intact(digest):
                    obstore.put(self._store, digest, content, use_multipart=False)
        return digest

    def read(self, digest: str) -> bytes:
        key = _key(digest)
        try:
            with _translated("read"):
                content = bytes(obstore.get(self._store, key).bytes())
        except FileNotFoundError:
            raise corrupt(digest, "its object is missing") from None
        got = hashlib.sha256(content).hexdigest()
        if got != digest:
            raise corrupt(digest, f"its object has SHA-256 {got}")
        return content

    def contains(self, digest: str) -> bool:
        try:
            with _translated("looked up"):
                obstore.head(self._store, _key(digest))
        except FileNotFoundError:
            return False
        return True

    def is_intact(self, digest: str) -> bool:
        """Whether the object is there with the right content; a silent service is no damage."""
        try:
            self.read(digest)
        except CorruptArtifactError:
            return False
        return True

    def list(self) -> Iterator[Blob]:
        with _translated("listed"):
            for page in obstore.list(self._store):
                for found in page:
                    if DIGEST_PATTERN.fullmatch(found["path"]):
                        yield Blob(found["path"], found["size"], found["last_modified"])

    def remove(self, digest: str) -> None:
        with suppress(FileNotFoundError), _translated("removed"):
            obstore.delete(self._store, _key(digest))

    def quarantine(self, digest: str) -> None:
        """Move a damaged object under the prefix `quarantine`."""
        key = _key(digest)
        with suppress(FileNotFoundError), _translated("moved"):
            obstore.rename(self._store, key, f"{_QUARANTINE}/{key}")

    def sweep(self, *, dry_run: bool = False) -> int:
        """Remove nothing: an object is created at once, so dead writers leave nothing."""
        del dry_run
        return 0


def _key(digest: str) -> str:
    assert DIGEST_PATTERN.fullmatch(digest), "not a SHA-256"
    return digest


@contextmanager
def _translated(verb: str) -> Iterator[None]:
    """Turn errors of the service into ours, but for that of an object that is not there.

    Raised `from None`: the log of a failed request must not show what the service answered.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as error:
        if any(sign in str(error) for sign in _FULL):
            raise InsufficientStorageError(
                "there is no room for the artifact in the object store; free space there, or "
                "raise its quota, then upload again"
            ) from None
        raise StoreUnavailableError(
            f"artifacts cannot be {verb} in the object store ({type(error).__name__}); check its "
            "address, and the account and credentials in the environment"
        ) from None
