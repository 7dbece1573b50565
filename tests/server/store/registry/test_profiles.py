"""Profiles: pinning, fingerprints, drafts, publishing."""

from __future__ import annotations

import pytest

from server.store import SYSTEM, ProfileStatus, Store
from server.store.errors import (
    DirectionNotFoundError,
    InUseError,
    PreconditionFailedError,
    ProfileNotFoundError,
)
from steering.documents import Profile, ProfileDocument, StrengthUnit
from steering.errors import InvalidFieldError
from steering.sites import Site, SitePoint
from tests.server.store.samples import direction, profile, publish, put


def in_units_of_the_residual(value: Profile) -> Profile:
    steps = [step.model_copy(update={"unit": StrengthUnit.RESID}) for step in value.interventions]
    return value.model_copy(update={"interventions": tuple(steps)})


def test_directions_are_pinned_when_saved(store: Store) -> None:
    put(store, direction(seed=1))
    record = publish(store, "careful", "refusal", monitors=[{"direction": "refusal@1"}])
    put(store, direction(seed=2))
    kept = store.profiles.get("careful")
    assert kept == record
    assert [str(step.direction) for step in kept.profile.interventions] == ["refusal@1"]
    assert [str(monitor.direction) for monitor in kept.profile.monitors] == ["refusal@1"]
    assert kept.directions == ("refusal@1",)
    assert kept.profile.version == 1
    assert publish(store, "careful", "refusal").directions == ("refusal@2",)


def test_an_unknown_direction_names_its_field(store: Store) -> None:
    put(store, direction())
    with pytest.raises(DirectionNotFoundError) as caught:
        publish(store, "careful", "refusal", "missing")
    assert caught.value.param == "interventions[1].direction"
    with pytest.raises(DirectionNotFoundError) as caught:
        publish(store, "careful", monitors=[{"direction": "refusal@9"}])
    assert caught.value.param == "monitors[0].direction"
    with pytest.raises(ProfileNotFoundError):
        store.profiles.get("careful", include_drafts=True)


def test_an_archived_direction_cannot_be_used_again(store: Store) -> None:
    put(store, direction())
    store.directions.archive("refusal", by=SYSTEM)
    for use in ("refusal", "refusal@1"):
        with pytest.raises(DirectionNotFoundError, match="archived"):
            publish(store, "careful", use)


def test_the_newest_document_is_not_stored_twice(store: Store) -> None:
    put(store, direction())
    first = store.profiles.save(profile("careful", "refusal"), by=SYSTEM)
    again = store.profiles.save(profile("careful", "refusal@1"), by=SYSTEM)
    other = store.profiles.save(profile("careful"), by=SYSTEM)
    back = store.profiles.save(profile("careful", "refusal"), by=SYSTEM)
    assert (first.created, again.created) == (True, False)
    assert [s.record.version for s in (first, again, other, back)] == [1, 1, 2, 3]


def test_saving_again_with_publish_publishes(store: Store) -> None:
    draft = store.profiles.save(profile(), by=SYSTEM).record
    saved = store.profiles.save(profile(), by=SYSTEM, publish=True)
    assert draft.status is ProfileStatus.DRAFT
    assert (saved.created, saved.record.status) == (False, ProfileStatus.PUBLISHED)
    assert saved.record.etag != draft.etag


def test_a_name_means_its_newest_published_version(store: Store) -> None:
    store.profiles.save(profile(description="1"), by=SYSTEM)
    with pytest.raises(ProfileNotFoundError, match="no published profile 'careful'"):
        store.profiles.get("careful")
    publish(store, description="2")
    store.profiles.save(profile(description="3"), by=SYSTEM)
    assert store.profiles.get("careful").version == 2
    assert store.profiles.get("careful", 3).status is ProfileStatus.DRAFT
    assert store.profiles.get("careful", include_drafts=True).version == 3
    assert store.profiles.publish("careful", 1, by=SYSTEM).version == 1
    assert store.profiles.get("careful").version == 2
    assert store.profiles.publish("careful", by=SYSTEM).version == 3
    assert store.profiles.get("careful").version == 3


def test_publishing_again_changes_nothing(store: Store) -> None:
    first = publish(store)
    events = store.audit.sequence()
    assert store.profiles.publish("careful", by=SYSTEM) == first
    assert store.audit.sequence() == events


def test_the_fingerprint_is_of_what_changes_numbers(store: Store) -> None:
    put(store, direction("a", 1))
    put(store, direction("b", 1))
    put(store, direction("c", 2))
    base = publish(store, "p1", "a")
    assert publish(store, "p2", "b", description="other words").fingerprint == base.fingerprint
    assert publish(store, "p3", "c").fingerprint != base.fingerprint
    assert publish(store, "p4", "a", "a").fingerprint != base.fingerprint
    orders = {publish(store, name, *uses).fingerprint for name, uses in _ORDERS.items()}
    assert len(orders) == 2


_ORDERS = {"ac": ("a", "c"), "ca": ("c", "a")}


def test_norms_are_frozen_only_where_they_count(store: Store) -> None:
    put(store, direction())
    norms = {SitePoint(2, Site.RESID_POST): 13.75}
    raw = store.profiles.save(profile("raw", "refusal"), by=SYSTEM, resid_norms=norms).record
    assert raw.resid_norms == {}
    value = in_units_of_the_residual(profile("resid", "refusal"))
    record = store.profiles.save(value, by=SYSTEM, resid_norms=norms).record
    assert store.profiles.get("resid", 1).resid_norms == norms
    louder = {SitePoint(2, Site.RESID_POST): 14.0}
    changed = store.profiles.save(value, by=SYSTEM, resid_norms=louder).record
    assert (changed.version, changed.fingerprint != record.fingerprint) == (2, True)


def test_what_only_weakening_requires_depends_on_the_use(store: Store) -> None:
    put(store, direction("refusal", requires=("weaken:restricted",)))
    use = {"operation": "add", "direction": "refusal", "layers": [2]}
    for name, item, requires in (
        ("more", use, ()),
        ("less", {**use, "strength": -1.0}, ("restricted",)),
        ("gone", {**use, "operation": "ablate"}, ("restricted",)),
    ):
        saved = store.profiles.save(
            ProfileDocument.from_dict({"interventions": [item]}).named(name),
            by=SYSTEM,
            resid_norms={},
        )
        assert saved.record.requires == requires
    assert publish(store, "watch", monitors=[{"direction": "refusal"}]).requires == ()


def test_requirements_are_inherited_from_directions(store: Store) -> None:
    put(store, direction("open"))
    put(store, direction("closed", requires=("restricted",)))
    assert publish(store, "mild", "open").requires == ()
    assert publish(store, "wild", "open", "closed").requires == ("restricted",)
    assert publish(store, "watch", monitors=[{"direction": "closed"}]).requires == ("restricted",)
    both = publish(store, "both", "closed", requires=["inline"])
    assert both.requires == ("inline", "restricted")
    assert both.profile.requires == ("inline",)


def test_archived_profiles_are_unlisted_but_readable(store: Store) -> None:
    publish(store, description="1")
    publish(store, description="2")
    store.profiles.archive("careful", 2, by=SYSTEM)
    assert store.profiles.get("careful").version == 1
    assert store.profiles.get("careful", 2, include_archived=True).profile.description == "2"
    with pytest.raises(ProfileNotFoundError):
        store.profiles.get("careful", 2)
    with pytest.raises(ProfileNotFoundError):
        store.profiles.publish("careful", 2, by=SYSTEM)
    assert publish(store, description="2").version == 3


def test_listing_by_status(store: Store) -> None:
    publish(store, "a", description="1")
    store.profiles.save(profile("a", description="2"), by=SYSTEM)
    store.profiles.save(profile("b"), by=SYSTEM)
    publish(store, "c")

    def shown(status: ProfileStatus | None) -> list[str]:
        return [r.reference for r in store.profiles.list(status=status).items]

    assert shown(None) == ["a@2", "b@1", "c@1"]
    assert shown(ProfileStatus.PUBLISHED) == ["a@1", "c@1"]
    assert shown(ProfileStatus.DRAFT) == ["a@2", "b@1"]


def test_an_aliased_profile_cannot_be_archived(store: Store) -> None:
    publish(store, description="1")
    publish(store, description="2")
    store.aliases.put("pinned", "careful", 1, by=SYSTEM)
    store.aliases.put("following", "careful", by=SYSTEM)
    with pytest.raises(InUseError) as caught:
        store.profiles.archive("careful", by=SYSTEM)
    assert caught.value.users == ("following", "pinned")
    with pytest.raises(InUseError, match="pinned"):
        store.profiles.archive("careful", 1, by=SYSTEM)
    store.profiles.archive("careful", 2, by=SYSTEM)
    assert store.aliases.resolve("following").version == 1


def test_an_etag_stops_the_second_writer(store: Store) -> None:
    seen = publish(store).etag
    store.profiles.save(profile(description="x"), by=SYSTEM, expected=seen)
    for stale in (
        lambda: store.profiles.save(profile(description="y"), by=SYSTEM, expected=seen),
        lambda: store.profiles.publish("careful", by=SYSTEM, expected=seen),
        lambda: store.profiles.archive("careful", by=SYSTEM, expected=seen),
    ):
        with pytest.raises(PreconditionFailedError):
            stale()
    assert len(store.profiles.versions("careful").items) == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"description": "a\0b"}, "description"),
        ({"description": "x" * 2001}, "description"),
        ({"requires": ["chat", "root"]}, "requires[1]"),
    ],
)
def test_text_that_cannot_be_kept_is_refused(
    sqlite_store: Store, fields: dict[str, object], param: str
) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        publish(sqlite_store, "careful", **fields)
    assert caught.value.param == param
