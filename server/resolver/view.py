"""The profiles and directions behind names, remembered while the store says nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Final, Self, TypeVar

from server.store import DirectionRecord, ProfileRecord, Store
from steering.directions import Direction
from steering.documents import DirectionRef

from .library import DirectionLibrary
from .lru import LruCache

_T = TypeVar("_T")
_MAX_NAMES: Final = 4096


class NotKnownError(Exception):
    """A name is not in memory, and the store was not to be asked."""


class RegistryView:
    """Profiles and directions by name, each asked of the store once. Thread-safe.

    Only what was found is remembered.
    """

    def __init__(self, store: Store, library: DirectionLibrary) -> None:
        self._store = store
        self._library = library
        self._asks = True
        self._profiles: LruCache[str, ProfileRecord] = LruCache(_MAX_NAMES)
        self._directions: LruCache[tuple[DirectionRef, bool], DirectionRecord] = LruCache(
            _MAX_NAMES
        )

    def remembered(self) -> Self:
        """The same, never asking the store: what is not in memory raises NotKnownError."""
        same = copy(self)
        same._asks = False
        return same

    def profile(self, reference: str) -> ProfileRecord:
        """See `AliasStore.resolve`."""
        return self._profiles.get_or(
            reference, lambda: self._ask(lambda: self._store.aliases.resolve(reference))
        )

    def direction(self, reference: DirectionRef, *, include_archived: bool = False) -> Direction:
        """See `DirectionLibrary.get`."""
        name, version = reference.name, reference.version

        def find() -> DirectionRecord:
            return self._store.directions.get(name, version, include_archived=include_archived)

        record = self._directions.get_or((reference, include_archived), lambda: self._ask(find))
        loaded = self._library.loaded(record)
        return self._ask(lambda: self._library.load(record)) if loaded is None else loaded

    def _ask(self, find: Callable[[], _T]) -> _T:
        if not self._asks:
            raise NotKnownError
        return find()


class RegistryViews:
    """The view of the store as it is now: one small query while nothing changes. Thread-safe.

    Every change of the registry, of this process or another, is an event of the audit log, and the
    number of the last such event is what a view is valid for.
    """

    def __init__(self, store: Store, library: DirectionLibrary) -> None:
        self._store = store
        self._library = library
        # One attribute, so that a thread never sees the view of another number.
        self._current = (-1, RegistryView(store, library))

    def now(self) -> RegistryView:
        """The view for one request; keep it for that request only."""
        last = self._store.audit.last_change()
        known, view = self._current
        if known != last:
            view = RegistryView(self._store, self._library)
            self._current = (last, view)
        return view
