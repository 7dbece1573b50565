"""The domains: thirteen ordinary ones, five restricted groups, and their harmless look-alikes."""

from __future__ import annotations

from functools import cache

from .domain import Domain
from .lexicon import read

__all__ = ["everyday", "groups", "ordinary", "visits"]


@cache
def ordinary() -> tuple[Domain, ...]:
    """Hobbies and homes."""
    return tuple(Domain.from_table(table) for table in read("ordinary")["domain"])


@cache
def groups() -> tuple[Domain, ...]:
    """Mischief in a museum: the restricted topic."""
    return tuple(Domain.from_table(table) for table in read("museum")["group"])


@cache
def visits() -> Domain:
    """Harmless verbs on the nouns of all restricted groups."""
    nouns = tuple(noun for group in groups() for noun in group.nouns)
    return Domain.from_table(read("museum")["visit"], nouns)


@cache
def everyday() -> Domain:
    """Restricted verbs on harmless nouns."""
    return Domain.from_table(read("museum")["everyday"])
