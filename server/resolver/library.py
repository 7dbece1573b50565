"""Stored directions with their tensors, ready to be compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from server.store import DirectionRecord, Store
from server.store.errors import StoreError
from steering.directions import Direction
from steering.documents import DirectionRef
from steering.formats import load_direction

from .lru import LruCache

_MAX_BYTES: Final = 512 * 2**20


def load_direction_blob(blob: bytes, record: DirectionRecord) -> Direction:
    """A stored file as the direction its record describes; the store's loader.

    It has been verified by its hash, so the bounds of uploads are none of its own.

    Raises:
        FormatError: The file cannot be read any more.
    """
    return load_direction(
        blob,
        record.name,
        version=record.version,
        kind=record.kind,
        site=record.site,
        layers=record.layers,
        model_fingerprint=record.model_fingerprint,
        requires=record.requires,
        provenance=record.provenance,
        tags=record.tags,
    )


def direction_at(
    find: Callable[[DirectionRef], Direction], reference: DirectionRef, path: str
) -> Direction:
    """The direction that `find` has under a reference at `path.direction` of a document.

    Raises:
        StoreError: As `find`, with `param` naming the field.
    """
    try:
        return find(reference)
    except StoreError as error:
        error.at(f"{path}.direction")
        raise


class DirectionLibrary:
    """Directions by name and version; versions are immutable, so nothing here goes stale.

    Args:
        store: Where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loaded: LruCache[tuple[str, int], Direction] = LruCache(_MAX_BYTES, _num_bytes)

    def get(self, reference: DirectionRef, *, include_archived: bool = False) -> Direction:
        """The direction meant; without a version, the newest.

        `include_archived` is for pinned references of profiles, which outlive an archiving.

        Raises:
            DirectionNotFoundError: There is none.
            CorruptArtifactError: Its file is damaged.
        """
        return self.load(
            self._store.directions.get(
                reference.name, reference.version, include_archived=include_archived
            )
        )

    def loaded(self, record: DirectionRecord) -> Direction | None:
        """The direction of a record, if it is in memory."""
        return self._loaded.get((record.name, record.version))

    def load(self, record: DirectionRecord) -> Direction:
        """The direction of a record.

        Raises:
            CorruptArtifactError: Its file is damaged.
        """
        return self._loaded.get_or(
            (record.name, record.version), lambda: self._store.directions.load(record)
        )


def _num_bytes(direction: Direction) -> int:
    return sum(tensor.nbytes for tensor in direction.tensors.values())
