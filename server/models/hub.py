"""Checkpoints of the Hugging Face hub: from its cache, or downloaded where there is a network."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

import structlog
from huggingface_hub import (
    HfApi,
    constants,
    scan_cache_dir,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    CacheNotFound,
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from server.engine.errors import ModelLoadError
from server.engine.loading.checkpoint import safetensors_command

_log = structlog.get_logger(__name__)

_WEIGHTS: Final = ("model.safetensors", "model-*-of-*.safetensors")
_PATTERNS: Final = (*_WEIGHTS, "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
_TEMPLATES: Final = "additional_chat_templates"


def find_snapshot(
    repo_id: str, revision: str | None = None, *, weights: bool = True
) -> tuple[Path, str]:
    """The folder of a checkpoint, and how it was had.

    What the cache holds in whole is taken as it is, without asking the hub. Otherwise weights in
    safetensors, configuration, tokenizer and templates are downloaded, and nothing else: no
    pickled weights and no code. `HF_HUB_OFFLINE`, `HF_HOME` and `HF_TOKEN` are respected.

    Args:
        repo_id: As `owner/name`.
        revision: A branch, a tag or a commit; None is the main branch.
        weights: Whether it must be whole; otherwise its configuration is enough.

    Raises:
        ModelLoadError: It is neither here nor to be had.
    """
    # `snapshot_download` would miss the files that were left out on purpose
    found = try_to_load_from_cache(repo_id, "config.json", revision=revision)
    folder = Path(found).parent if isinstance(found, str) else None
    if folder is not None and (not weights or is_complete(folder)):
        return folder, f"snapshot {folder.name[:8]} of the cache"
    if constants.HF_HUB_OFFLINE:
        state = "not in" if folder is None else "not whole in"
        raise _refusal(
            repo_id, f"is {state} the cache {constants.HF_HUB_CACHE!r}, and HF_HUB_OFFLINE is set"
        )
    folder = _download(repo_id, revision, weights=weights)
    return folder, f"snapshot {folder.name[:8]}, downloaded"


def cached_ids() -> list[str]:
    """The models whose configuration is in the cache."""
    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    return sorted(
        found.repo_id
        for found in repositories
        if found.repo_type == "model"
        and isinstance(try_to_load_from_cache(found.repo_id, "config.json"), str)
    )


def _download(repo_id: str, revision: str | None, *, weights: bool) -> Path:
    try:
        info = HfApi().model_info(repo_id, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        wanted = [name for name in sizes if _is_wanted(name)] if weights else ["config.json"]
        _check_weights(repo_id, sizes)
        num_bytes = sum(sizes[name] for name in wanted)
        _log.info("model_download", model=repo_id, num_files=len(wanted), num_bytes=num_bytes)
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=wanted))
    except GatedRepoError:
        raise _refusal(
            repo_id, "is gated: accept its terms on the hub, and set HF_TOKEN to a token of yours"
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise _refusal(
            repo_id,
            "is not on the hub (or private: set HF_TOKEN)"
            if revision is None
            else f"has no revision {revision!r} on the hub (or is private: set HF_TOKEN)",
        ) from None
    except ModelLoadError:
        raise
    except Exception as error:  # of whichever HTTP client the library has, and of its own
        raise _refusal(
            repo_id, f"is not in the cache, and could not be downloaded: {_line(error)}"
        ) from error


def _is_wanted(name: str) -> bool:
    path = PurePosixPath(name)
    if path.parent.name:
        return path.parts[:-1] == (_TEMPLATES,) and path.suffix == ".jinja"
    return any(path.match(pattern) for pattern in _PATTERNS)


def _check_weights(repo_id: str, names: Iterable[str]) -> None:
    """Refuse a repository without weights that can be read, before anything is downloaded."""
    names = list(names)
    if any(PurePosixPath(name).match(pattern) for name in names for pattern in _WEIGHTS):
        return
    if files := [name for name in names if name.endswith(".gguf")]:
        raise _refusal(
            repo_id,
            f"holds GGUF files ({', '.join(files[:3])}); download one and give its path: "
            f"hf download {repo_id} {files[0]}",
        )
    if any(name.endswith(".bin") for name in names):
        raise _refusal(
            repo_id,
            "has pickled weights only, which are not read; convert them, and give the new folder: "
            f"{safetensors_command(repo_id, repo_id.split('/')[1])}",
        )
    raise _refusal(repo_id, "has no weights in safetensors")


def is_complete(folder: Path) -> bool:
    """Whether the configuration and all weights are there."""
    if not (folder / "config.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError):
        return True  # damaged: told when it is loaded
    return all((folder / shard).is_file() for shard in shards)


def _refusal(repo_id: str, fault: str) -> ModelLoadError:
    return ModelLoadError(
        f"model {repo_id!r} is no folder here, and as a model of the hub it {fault}", param="model"
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
