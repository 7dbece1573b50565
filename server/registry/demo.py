"""The demo directions and profiles of the served model, created on first start."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import structlog

from server.auth.permissions import LOCAL_USER
from server.resolver.errors import InvalidProfileError
from server.resolver.library import DirectionLibrary
from server.store import SYSTEM, Store
from server.store.errors import ProfileNotFoundError, StoreError
from steering.documents import DirectionRef
from steering.errors import IncompatibleModelError, SteeringError
from steering.model_spec import ModelSpec

from .drafting import Drafting
from .upload import Uploader

_DIRECTIONS: Final = "directions"
_PROFILES: Final = "profiles.json"
_TAG: Final = "demo"
_log = structlog.get_logger(__name__)


def find_demo(folders: Iterable[Path], spec: ModelSpec) -> Path | None:
    """The folder whose directions were made for exactly this model, by its fingerprint."""
    for folder in folders:
        made_for = {
            _metadata(path).get("model_fingerprint")
            for path in sorted((folder / _DIRECTIONS).glob("*.json"))
        }
        if spec.fingerprint in made_for:
            return folder
    return None


def import_demo(
    folder: Path, store: Store, spec: ModelSpec, *, is_same_model: bool = False
) -> list[str]:
    """Create and publish what `folder` holds, where it fits the model; returns the profiles made.

    The folder has `directions/<name>.safetensors`, each with an optional `<name>.json` beside it
    that says what the file does not, and `profiles.json`, an object of profiles by name. Names
    that exist are left alone, so that it may run at every start and never undoes an edit; but
    where the newest version is a demo of a model of another width, one for this model is added.

    Whatever goes wrong is in the log and nothing more: the server can do without.

    Args:
        folder: The folder to import.
        store: The store to import it into.
        spec: The loaded model.
        is_same_model: The loaded weights are those the folder was made for, perhaps in another data
            type. Its directions then say so in their provenance, as `made_for`, and not that they
            are of this fingerprint.
    """
    try:
        made = _create(folder, store, spec, is_same_model=is_same_model)
    except IncompatibleModelError:
        _log.info("demo_not_loaded", reason="made for another model or data type")
        return []
    except (SteeringError, InvalidProfileError, StoreError, OSError, ValueError) as error:
        _log.warning("demo_not_loaded", reason=str(error))
        return []
    if made:
        _log.info("demo_loaded", profiles=made)
    return made


def _create(folder: Path, store: Store, spec: ModelSpec, *, is_same_model: bool) -> list[str]:
    profiles = folder / _PROFILES
    if not profiles.is_file():
        return []
    documents: dict[str, dict[str, Any]] = json.loads(profiles.read_text())
    missing = {name: doc for name, doc in documents.items() if not _is_kept(store, name, spec)}
    if not missing:
        return []
    _import_directions(folder / _DIRECTIONS, Uploader(store, spec), is_same_model=is_same_model)
    drafting = Drafting(store, DirectionLibrary(store), spec)
    for name, document in missing.items():
        drafting.save(name, document, caller=LOCAL_USER, by=SYSTEM, publish=True)
    return sorted(missing)


def _import_directions(folder: Path, uploader: Uploader, *, is_same_model: bool) -> None:
    others = []
    for path in sorted(folder.glob("*.safetensors")):
        metadata = {"name": path.stem, **_metadata(path.with_suffix(".json"))}
        made_for = metadata.get("model_fingerprint")
        if is_same_model and made_for not in (None, uploader.spec.fingerprint):
            del metadata["model_fingerprint"]
            metadata["provenance"] = {**metadata.get("provenance", {}), "made_for": made_for}
            others.append(path.stem)
        uploader.from_file(path.read_bytes(), metadata, by=SYSTEM)
    if others:
        _log.warning(
            "demo_of_another_data_type",
            directions=others,
            message="they were made and measured in the checkpoint's own data type, and act in "
            "this one much as they do there",
        )


def _metadata(path: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return metadata


def _is_kept(store: Store, name: str, spec: ModelSpec) -> bool:
    """Whether there is such a profile, other than a demo that can never act on this model."""
    try:
        record = store.profiles.get(name, include_drafts=True, include_archived=True)
    except ProfileNotFoundError:
        return False
    references = map(DirectionRef.parse, record.directions)
    used = [store.directions.get(r.name, r.version, include_archived=True) for r in references]
    is_demo = all(_TAG in direction.tags for direction in used)
    is_usable = all(direction.width == spec.hidden_size for direction in used)
    return record.archived_at is not None or not is_demo or is_usable
