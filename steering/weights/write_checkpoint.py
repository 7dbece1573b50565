"""Writing an edited checkpoint: its shards with their index, and what is beside the weights."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from steering.formats import TensorPiece
from steering.sites import SitePoint

from .checkpoint_files import FLOAT_DTYPES, INDEX_FILE, Shard, piece_of, write_shard
from .weight_edits import Survival, WeightEdits

_SUFFIXES: Final = frozenset({"", ".jinja", ".json", ".md", ".model", ".tiktoken", ".txt"})
_FOLDERS: Final = frozenset({"additional_chat_templates"})


def write_weights(edits: WeightEdits, folder: Path) -> dict[SitePoint, Survival]:
    """Write every shard under its name into `folder`, with the index.

    Holds the data of one tensor at a time, as stored and as edited.

    Returns:
        What survived at each point.
    """
    survived = dict.fromkeys(edits.edits, Survival())
    owners: dict[str, str] = {}
    total_bytes = 0
    for file, shard in edits.files.shards.items():
        pieces = _pieces(edits, shard, survived)
        write_shard(folder / file, pieces, shard.metadata)
        owners |= {piece.name: file for piece in pieces}
        total_bytes += sum(piece.num_bytes for piece in pieces)
    if edits.files.is_sharded:
        document = {
            "metadata": {"total_size": total_bytes},
            "weight_map": dict(sorted(owners.items())),
        }
        (folder / INDEX_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return survived


def _pieces(
    edits: WeightEdits, shard: Shard, survived: dict[SitePoint, Survival]
) -> list[TensorPiece]:
    pieces = []
    for name in shard.names:
        if name in edits.by_name:
            make = partial(_edit, edits, name, survived)
            shape = edits.files.tensor(name).shape
            pieces.append(piece_of(name, edits.dtype_of(name), shape, make))
        else:
            pieces.append(_copied(edits, shard, name))
    untied = edits.untied
    is_new = untied is not None and untied.unembedding not in edits.files.names
    if untied is not None and is_new and untied.embedding in shard.names:
        pieces.append(_copied(edits, shard, untied.embedding, untied.unembedding))
    return pieces


def _edit(edits: WeightEdits, name: str, survived: dict[SitePoint, Survival]) -> Tensor:
    edited, part = edits.edited(name)
    survived[edits.by_name[name].point] += part
    return edited


def _copied(edits: WeightEdits, shard: Shard, name: str, under: str | None = None) -> TensorPiece:
    stored, dtype = FLOAT_DTYPES.get(shard.dtype(name)), edits.dtype
    if dtype is None or stored in (None, dtype):
        return shard.piece(name, under=under)
    return piece_of(
        under or name, dtype, shard.tensor(name).shape, lambda: shard.tensor(name).to(dtype)
    )


def copy_metadata(edits: WeightEdits, folder: Path) -> tuple[str, ...]:
    """Copy it into `folder`, the configuration with the dtype and the tying of the new weights.

    Returns:
        Names of what was left out: weights in other files and formats, which would be those of
        the unedited model, and hidden files.
    """
    left_out = []
    for path in sorted(edits.files.folder.iterdir()):
        if path.name in _FOLDERS and path.is_dir():
            shutil.copytree(path, folder / path.name)
        elif _is_text(path):
            shutil.copyfile(path, folder / path.name)
        elif path.name not in edits.files.shards:
            left_out.append(path.name)
    config = json.dumps(_configuration(edits), indent=2) + "\n"
    (folder / "config.json").write_text(config, encoding="utf-8")
    return tuple(left_out)


def _is_text(path: Path) -> bool:
    is_index = path.name.endswith(".index.json")  # of shards that are written anew, or left out
    return path.is_file() and path.suffix in _SUFFIXES and path.name[0] != "." and not is_index


def _configuration(edits: WeightEdits) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if edits.untied is not None:
        changes["tie_word_embeddings"] = False
    if edits.dtype is not None:
        changes["dtype"] = str(edits.dtype).removeprefix("torch.")
    config = {**edits.files.config, **changes}
    if isinstance(config.get("text_config"), dict):
        config["text_config"] = {**config["text_config"], **changes}
    if edits.dtype is not None:
        config.pop("torch_dtype", None)  # the older name of `dtype`
    return config
