"""Safetensors files are written as their library reads them, a tensor at a time."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from steering.weights import CheckpointError, CheckpointFiles
from steering.weights.checkpoint_files import Shard, piece_of, write_shard

TENSORS = {
    "a.weight": torch.randn(3, 5).bfloat16(),
    "ids": torch.arange(7),
    "mask": torch.tensor([True, False, True]),
    "b.weight": torch.randn(2, 3, 4),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
}


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return Shard(tmp_path / "model.safetensors")


def test_a_copy_holds_the_same(shard: Shard, tmp_path: Path) -> None:
    write_shard(tmp_path / "copy", [shard.piece(name) for name in shard.names], shard.metadata)
    copied = load_file(tmp_path / "copy")
    assert {name: tensor.dtype for name, tensor in copied.items()} == {
        name: tensor.dtype for name, tensor in TENSORS.items()
    }
    assert all(torch.equal(copied[name], TENSORS[name]) for name in TENSORS)
    with safe_open(tmp_path / "copy", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_tensors_may_be_replaced_and_written_under_other_names(
    shard: Shard, tmp_path: Path
) -> None:
    pieces = [
        piece_of("a.weight", torch.float32, (3, 5), lambda: shard.tensor("a.weight").float()),
        shard.piece("b.weight", under="c.weight"),
    ]
    write_shard(tmp_path / "new", pieces, {})
    written = load_file(tmp_path / "new")
    assert set(written) == {"a.weight", "c.weight"}
    assert torch.equal(written["a.weight"], TENSORS["a.weight"].float())
    assert torch.equal(written["c.weight"], TENSORS["b.weight"])


def test_data_is_read_when_it_is_written(shard: Shard, tmp_path: Path) -> None:
    """One tensor is in memory at a time."""
    alive: list[str] = []

    def make(name: str) -> torch.Tensor:
        alive.append(name)
        return torch.zeros(2)

    pieces = [piece_of(name, torch.float32, (2,), partial(make, name)) for name in "xy"]
    assert alive == []
    write_shard(tmp_path / "new", pieces, {})
    assert alive == ["x", "y"]


def test_a_tensor_of_another_size_is_our_mistake(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="another size"):
        write_shard(tmp_path / "x", [piece_of("x", torch.float32, (3,), lambda: torch.ones(2))], {})


@pytest.mark.parametrize(
    "content", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00not json", b"PK\x03\x04"]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        Shard(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("config", "index", "expected"),
    [
        ("{", None, "config.json cannot be read"),
        ('{"quantization_config": {"bits": 4}}', None, "quantised"),
        ("{}", None, "index.json cannot be read"),
        ("{}", '{"weight_map": {"w": "../other/model.safetensors"}}', "files beside it"),
    ],
)
def test_folders_that_are_no_checkpoints_are_refused(
    tmp_path: Path, config: str, index: str | None, expected: str
) -> None:
    (tmp_path / "config.json").write_text(config)
    if index is not None:
        (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=expected):
        CheckpointFiles(tmp_path)


def test_weights_that_are_no_numbers_are_refused(shard: Shard) -> None:
    (shard.path.parent / "config.json").write_text("{}")
    files = CheckpointFiles(shard.path.parent)
    assert torch.equal(files.tensor("b.weight"), TENSORS["b.weight"])
    with pytest.raises(CheckpointError, match="ids is stored as I64"):
        files.tensor("ids")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("{}", None),
        ('{"dtype": "bfloat16"}', torch.bfloat16),
        ('{"torch_dtype": "float16"}', torch.float16),
        ('{"text_config": {"dtype": "float32"}}', torch.float32),
        ('{"dtype": "auto"}', None),
    ],
)
def test_the_dtype_of_loading_is_the_configurations(
    shard: Shard, config: str, expected: torch.dtype | None
) -> None:
    (shard.path.parent / "config.json").write_text(config)
    assert CheckpointFiles(shard.path.parent).loading_dtype is expected
