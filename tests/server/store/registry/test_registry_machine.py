"""The registry against a model of it in plain Python, under random sequences of calls."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.store import SYSTEM, ProfileRecord, ProfileStatus, Store
from server.store.errors import (
    DirectionNotFoundError,
    InUseError,
    NameTakenError,
    NotPublishedError,
    ProfileNotFoundError,
    StoreError,
)
from tests.server.store import samples

NAMES = st.sampled_from(["a", "b"])
SEEDS = st.integers(0, 2)
VERSIONS = st.none() | st.integers(1, 3)


@dataclass
class Version:
    content: object
    is_archived: bool = False
    is_published: bool = False


@dataclass
class Model:
    """What the store should hold: versions in order, and aliases."""

    directions: dict[str, list[Version]] = field(default_factory=dict)
    profiles: dict[str, list[Version]] = field(default_factory=dict)
    aliases: dict[str, tuple[str, int | None]] = field(default_factory=dict)


def listed(versions: list[Version], version: int | None) -> list[int]:
    """Numbers of the versions that are not archived: all, or one."""
    return [
        number
        for number, item in enumerate(versions, 1)
        if not item.is_archived and version in (None, number)
    ]


class Registry(RuleBasedStateMachine):
    """Each example has names of its own in one store, which is much cheaper to open once."""

    store: ClassVar[Store]
    examples: ClassVar[itertools.count[int]] = itertools.count()

    @initialize()
    def begin(self) -> None:
        self.prefix = f"e{next(self.examples)}-"
        self.model = Model()
        # Most calls on an empty registry only miss; begin where every rule has something to do.
        for name in ("a", "b"):
            self.upload(name, 0)
            self.save(name, [(name, None)], publish=True)
        self.point_alias("x", "a", None)

    @rule(name=NAMES, seed=SEEDS)
    def upload(self, name: str, seed: int) -> None:
        versions = self.model.directions.setdefault(name, [])
        same = [n for n in listed(versions, None) if versions[n - 1].content == seed]
        saved = samples.put(self.store, samples.direction(self.prefix + name, seed))
        assert saved.created == (not same)
        assert saved.record.version == (same[0] if same else len(versions) + 1)
        if not same:
            versions.append(Version(seed))

    @rule(name=NAMES, version=VERSIONS)
    def archive_direction(self, name: str, version: int | None) -> None:
        versions = self.model.directions.get(name, [])
        numbers = listed(versions, version)
        users = {
            f"{self.prefix}{profile}@{number}"
            for profile, items in self.model.profiles.items()
            for number in listed(items, None)
            if set(items[number - 1].content) & {(name, n) for n in numbers}  # type: ignore[call-overload]
        }
        call = partial(self.store.directions.archive, self.prefix + name, version, by=SYSTEM)
        if not numbers:
            with pytest.raises(DirectionNotFoundError):
                call()
        elif users:
            with pytest.raises(InUseError) as caught:
                call()
            assert set(caught.value.users) == users
        else:
            assert [record.version for record in call()] == numbers
            for number in numbers:
                versions[number - 1].is_archived = True

    @rule(name=NAMES, uses=st.lists(st.tuples(NAMES, VERSIONS), max_size=2), publish=st.booleans())
    def save(self, name: str, uses: list[tuple[str, int | None]], publish: bool) -> None:
        texts = [f"{self.prefix}{d}" + (f"@{v}" if v else "") for d, v in uses]
        value = samples.profile(self.prefix + name, *texts)
        call = partial(self.store.profiles.save, value, by=SYSTEM, publish=publish)
        pinned: list[tuple[str, int] | None] = []
        for used, version in uses:
            numbers = listed(self.model.directions.get(used, []), version)
            pinned += [(used, numbers[-1])] if numbers else [None]
        if name in self.model.aliases:
            with pytest.raises(NameTakenError):
                call()
        elif None in pinned:
            with pytest.raises(DirectionNotFoundError):
                call()
        else:
            self._saved(name, tuple(pinned), publish, call().record)

    def _saved(
        self, name: str, content: tuple[object, ...], publish: bool, record: ProfileRecord
    ) -> None:
        versions = self.model.profiles.setdefault(name, [])
        if not versions or versions[-1].is_archived or versions[-1].content != content:
            versions.append(Version(content))
        versions[-1].is_published |= publish
        assert record.version == len(versions)
        is_published = record.status is ProfileStatus.PUBLISHED
        assert is_published == versions[-1].is_published

    @rule(name=NAMES, version=VERSIONS)
    def publish(self, name: str, version: int | None) -> None:
        versions = self.model.profiles.get(name, [])
        numbers = listed(versions, version)
        if not numbers:
            with pytest.raises(ProfileNotFoundError):
                self.store.profiles.publish(self.prefix + name, version, by=SYSTEM)
            return
        record = self.store.profiles.publish(self.prefix + name, version, by=SYSTEM)
        assert record.version == numbers[-1]
        versions[numbers[-1] - 1].is_published = True

    @rule(name=NAMES, version=VERSIONS)
    def archive_profile(self, name: str, version: int | None) -> None:
        versions = self.model.profiles.get(name, [])
        numbers = listed(versions, version)
        left = [n for n in self._published(name) if n not in numbers]
        stranded = {
            self.prefix + alias
            for alias, (target, pin) in self.model.aliases.items()
            if target == name and (pin in numbers or (pin is None and not left))
        }
        call = partial(self.store.profiles.archive, self.prefix + name, version, by=SYSTEM)
        if not numbers:
            with pytest.raises(ProfileNotFoundError):
                call()
        elif stranded:
            with pytest.raises(InUseError) as caught:
                call()
            assert set(caught.value.users) == stranded
        else:
            assert sorted(record.version for record in call()) == numbers
            for number in numbers:
                versions[number - 1].is_archived = True

    @rule(alias=st.sampled_from(["a", "x"]), name=NAMES, version=VERSIONS)
    def point_alias(self, alias: str, name: str, version: int | None) -> None:
        target = self.prefix + name
        call = partial(self.store.aliases.put, self.prefix + alias, target, version, by=SYSTEM)
        numbers = listed(self.model.profiles.get(name, []), version)
        refusal: type[StoreError] | None = None
        if self.model.profiles.get(alias):
            refusal = NameTakenError
        elif not numbers:
            refusal = ProfileNotFoundError
        elif not set(numbers) & set(self._published(name)):
            refusal = NotPublishedError
        if refusal is not None:
            with pytest.raises(refusal):
                call()
            return
        call()
        self.model.aliases[alias] = (name, version)

    @precondition(lambda self: self.model.aliases)
    @rule(data=st.data())
    def delete_alias(self, data: st.DataObject) -> None:
        alias = data.draw(st.sampled_from(sorted(self.model.aliases)))
        self.store.aliases.delete(self.prefix + alias, by=SYSTEM)
        del self.model.aliases[alias]

    @invariant()
    def every_alias_leads_somewhere(self) -> None:
        for alias, (name, version) in getattr(self, "model", Model()).aliases.items():
            record = self.store.aliases.resolve(self.prefix + alias)
            assert record.name == self.prefix + name
            assert record.version == (version or self._published(name)[-1])

    def teardown(self) -> None:
        for name, versions in self.model.directions.items():
            for number, item in enumerate(versions, 1):
                record = self.store.directions.get(
                    self.prefix + name, number, include_archived=True
                )
                assert self.store.directions.load(record).digest == (
                    samples.direction(name, item.content).digest  # type: ignore[arg-type]
                )
                assert (record.archived_at is not None) == item.is_archived

    def _published(self, name: str) -> list[int]:
        versions = self.model.profiles.get(name, [])
        return [n for n in listed(versions, None) if versions[n - 1].is_published]


def test_the_registry_behaves_like_its_model() -> None:
    with tempfile.TemporaryDirectory() as data_dir:
        Registry.store = Store.open(data_dir, load=samples.load, low_water_bytes=0)
        Registry.TestCase.settings = settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            phases=[Phase.generate],  # a minimal failing sequence would take minutes to find
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        Registry.TestCase("runTest").runTest()
        Registry.store.audit.verify()
        Registry.store.close()
