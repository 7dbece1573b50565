"""Opens the store of tensors at the address in the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from server.store.errors import StoreError

from .blobs import BlobStore
from .directory import BlobDirectory

_OBJECT_SCHEMES: Final = ("s3", "gs", "az")


def open_blobs(url: str | None, default: Path, low_water_bytes: int) -> BlobStore:
    """The store at `url`, or in the directory `default` where it is None.

    Args:
        url: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or
            `file:///absolute/folder`.
        default: Created if absent.
        low_water_bytes: Free space that uploads leave untouched in a directory.

    Raises:
        StoreError: Another address, one with credentials in it, or the package for it is missing.
    """
    if url is None:
        return BlobDirectory(default, low_water_bytes)
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise StoreError(
            "the artifacts URL has a user, password, query or fragment; give scheme, bucket and "
            "prefix, and credentials in the environment"
        )
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return BlobDirectory(Path(unquote(parts.path)), low_water_bytes)
    if parts.scheme not in _OBJECT_SCHEMES or not parts.netloc:
        raise StoreError(
            f"the artifacts URL is {url!r}; expected s3://bucket/prefix, gs://bucket/prefix, "
            "az://container/prefix or file:///folder"
        )
    try:
        from .objects import BlobObjects
    except ModuleNotFoundError as error:
        raise StoreError(
            f"the artifacts URL is {url!r}, which needs the package {error.name}; install it with "
            "pip install 'coxswain[objects]'"
        ) from error
    return BlobObjects.at(url)
