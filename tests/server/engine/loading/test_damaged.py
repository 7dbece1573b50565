"""A damaged checkpoint is served as transformers would serve it, or refused in one line."""

from __future__ import annotations

import copy
import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from server.engine.attention import ScheduledSequence
from server.engine.engine import EngineConfig
from server.engine.errors import EngineError
from server.engine.loading import load
from steering.errors import SteeringError
from tests.models.checkpoint import save_tiny
from tests.models.tiny import tiny_model

SAMPLE: Final = 40
"""Damages tried of each file's hundreds to thousands."""

VALUES: Final[tuple[Any, ...]] = (
    *(None, True, -1, 0, 3, 10**9, 10**30, 1.5, math.nan),
    *("x", "9" * 400, [], {}, [None], {"a": 1}),
)
WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
TEXT: Final = "Hello, wörld 12"
IDS: Final = torch.arange(20, 60)[None]

Served = tuple[Tensor, list[int]]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = save_tiny("llama", tmp_path_factory.mktemp("models") / "sharded")
    (path / WEIGHTS).unlink()
    tiny_model("llama").save_pretrained(path, max_shard_size="40KB")
    return path


@torch.inference_mode()
def _ours(path: Path) -> Served:
    loaded = load(EngineConfig(str(path), device="cpu", num_threads=1, max_num_seqs=4))
    loaded.attention.begin_step([ScheduledSequence(range(3), 0, IDS.shape[1])])
    positions = torch.arange(IDS.shape[1])[None]
    logits = loaded.model(input_ids=IDS, position_ids=positions, use_cache=False).logits
    return logits, loaded.tokenizer.encode(TEXT)


@torch.inference_mode()
def _theirs(path: Path) -> Served:
    model: Any = AutoModelForCausalLM.from_pretrained(path)
    return model(IDS).logits, AutoTokenizer.from_pretrained(path).backend_tokenizer.encode(TEXT).ids


def _is_refused(path: Path, damage: str) -> bool:
    """Whether a checkpoint is refused, in one line; one that is served must be the same."""
    try:
        ours = _ours(path)
    except (EngineError, SteeringError) as error:
        told = str(error)
        assert told
        assert "\n" not in told, damage
        assert len(told) < 700, damage
        return True
    theirs = _theirs(path)
    assert torch.allclose(ours[0], theirs[0], atol=1e-3, rtol=1e-3), damage
    assert ours[1] == theirs[1], damage
    return False


def _places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(document, dict):
        items = iter(document.items())
    elif isinstance(document, list):
        items = iter(enumerate(document[:3]))
    for key, value in items:
        yield (*path, key)
        yield from _places(value, (*path, key))


def _damaged_json(document: Any, rng: random.Random) -> tuple[str, Any]:
    """A document without one of its values, or with one of another type."""
    document = copy.deepcopy(document)
    places = list(_places(document))
    # few of a vocabulary's many entries
    place = rng.choice([at for at in places if "vocab" not in at[:-1] or rng.random() < 0.02])
    at = document
    for key in place[:-1]:
        at = at[key]
    if rng.random() < 0.1:
        del at[place[-1]]
        return f"{place} deleted", document
    at[place[-1]] = rng.choice(VALUES)
    return f"{place} = {at[place[-1]]!r}", document


@pytest.mark.parametrize(
    ("family", "file"),
    [
        ("llama", "config.json"),
        ("gemma2", "config.json"),
        ("qwen3_moe", "config.json"),
        ("gpt2", "config.json"),
        ("llama", "tokenizer.json"),
        ("llama", "tokenizer_config.json"),
        ("llama", "generation_config.json"),
    ],
)
def test_a_value_of_another_type(family: str, file: str, tmp_path: Path) -> None:
    path = save_tiny(family, tmp_path)
    document = json.loads((path / file).read_text())
    assert not _is_refused(path, "none")
    rng = random.Random(file)
    outcomes = set()
    for _ in range(SAMPLE):
        damage, damaged = _damaged_json(document, rng)
        (path / file).write_text(json.dumps(damaged))
        outcomes.add(_is_refused(path, damage))
    assert outcomes == {True, False}  # neither all refused nor all served: the search bites


def test_an_index_that_points_elsewhere(sharded: Path, tmp_path: Path) -> None:
    document = json.loads((sharded / INDEX).read_text())
    path = shutil.copytree(sharded, tmp_path / "damaged")
    assert not _is_refused(path, "none")
    rng = random.Random(INDEX)
    for _ in range(SAMPLE):
        damage, damaged = _damaged_json(document, rng)
        (path / INDEX).write_text(json.dumps(damaged))
        is_refused = _is_refused(path, damage)
        assert is_refused or "weight_map" not in damage or "deleted" in damage


def _flipped(data: bytes, header: int, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    damaged[rng.randrange(header)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _cut(data: bytes, header: int, rng: random.Random) -> bytes:
    del header
    return data[: rng.randrange(len(data))]


def _misjudged(data: bytes, header: int, rng: random.Random) -> bytes:
    length = rng.choice([0, 1, header - 9, header - 7, 10**8 + 1, 2**40, 2**63])
    return length.to_bytes(8, "little") + data[8:]


def _lengthened(data: bytes, header: int, rng: random.Random) -> bytes:
    at = rng.randrange(8, header)
    return data[:at] + rng.randbytes(1) + data[at:]


@pytest.mark.parametrize("damage", [_flipped, _cut, _misjudged, _lengthened])
def test_bytes_of_the_weights_file(
    damage: Callable[[bytes, int, random.Random], bytes], tmp_path: Path
) -> None:
    path = save_tiny("llama", tmp_path)
    data = (path / WEIGHTS).read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    rng = random.Random(damage.__name__)
    refused = 0
    for number in range(SAMPLE):
        (path / WEIGHTS).write_bytes(damage(data, header, rng))
        refused += _is_refused(path, f"{damage.__name__} {number}")
    assert refused > SAMPLE * 0.9  # a flip may land in the file's notes


@pytest.mark.parametrize("change", ["unlink", "empty", "folder"])
def test_a_shard_that_is_no_file(change: str, sharded: Path, tmp_path: Path) -> None:
    for name in sorted(path.name for path in sharded.glob("*.safetensors")):
        path = shutil.copytree(sharded, tmp_path / name)
        (path / name).unlink()
        if change == "empty":
            (path / name).touch()
        elif change == "folder":
            (path / name).mkdir()
        assert _is_refused(path, name)
