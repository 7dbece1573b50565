"""Every tensor of a checkpoint is used, left out for a reason that is told, or refused."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs
from torch import Tensor

from server.engine.attention import ScheduledSequence
from server.engine.engine import EngineConfig
from server.engine.errors import ModelLoadError
from server.engine.loading import load
from tests.models.checkpoint import save_tiny
from tests.models.tiny import FAMILIES, tiny_model

Weights = dict[str, Tensor]

SAMPLE = 20
"""Changes tried of each family's hundred or so; all of them pass, in a minute."""

ADDED = ("bias", "weight_scale", "weight_scale_inv", "qweight", "lora_A.weight", "extra.weight")
"""What is put beside a weight, after the name of its module."""

LOADED_AS = {"embed_out": "lm_head", "block_sparse_moe": "mlp"}
"""Modules whose name in the files is another than in the model."""

WEIGHTS = "model.safetensors"


def _config(path: Path, **changes: str) -> EngineConfig:
    return EngineConfig(str(path), device="cpu", num_threads=1, pack_weights=False, **changes)


def _save(weights: Weights, path: Path) -> None:
    save_file(weights, path / WEIGHTS, metadata={"format": "pt"})


def _without(name: str, weights: Weights) -> Weights:
    return {key: value for key, value in weights.items() if key != name}


def _renamed(name: str, weights: Weights) -> Weights:
    return _without(name, weights) | {f"{name}_old": weights[name]}


def _resized(name: str, weights: Weights) -> Weights:
    return weights | {name: torch.cat([weights[name], weights[name][:1]])}


def _of_another_rank(name: str, weights: Weights) -> Weights:
    return weights | {name: weights[name].unsqueeze(-1).contiguous()}


CHANGES: tuple[Callable[[str, Weights], Weights], ...] = (
    _without,
    _renamed,
    _resized,
    _of_another_rank,
)


def _changed(weights: Weights) -> Iterator[tuple[str, Weights]]:
    """A tensor of each kind removed, renamed, resized, and given something beside it."""
    kinds = {"".join(char for char in name if not char.isdigit()): name for name in weights}
    for name in kinds.values():
        for change in CHANGES:
            yield name, change(name, weights)
        for suffix in ADDED:
            added = f"{name.rpartition('.')[0]}.{suffix}"
            if added not in weights:
                yield added, weights | {added: torch.ones(3)}


def _told_as(name: str) -> str:
    """The part of a tensor's name that a message about it has."""
    parts = [LOADED_AS.get(part, part) for part in name.split(".")]
    if "experts" in parts:  # those of a layer become one parameter
        parts = parts[: parts.index("experts") + 1]
    return ".".join(parts)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_tensor_is_missing_misshapen_or_superfluous_in_silence(
    family: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save_tiny(family, tmp_path)
    changes = list(_changed(load_file(path / WEIGHTS)))
    capfd.readouterr()
    for name, weights in random.Random(family).sample(changes, SAMPLE):
        _save(weights, path)
        with pytest.raises(ModelLoadError) as caught:
            load(_config(path))
        assert _told_as(name) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.param == "model"
    assert capfd.readouterr() == ("", "")  # we tell, not a library's print


@torch.inference_mode()
@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("llama", ("model.layers.0.self_attn.rotary_emb.inv_freq",)),
        ("llama", ("mtp.layers.0.up_proj.weight", "model.mtp_layers.0.norm.weight")),
        ("gemma", ("vision_tower.encoder.0.weight", "multi_modal_projector.weight")),
        ("gpt2", ("transformer.h.0.attn.bias", "transformer.h.0.attn.masked_bias")),
        ("gpt_neox", ("gpt_neox.layers.1.attention.masked_bias",)),
    ],
)
def test_what_no_text_needs_is_left_out_and_told(
    family: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    path = save_tiny(family, tmp_path)
    _save(load_file(path / WEIGHTS) | {name: torch.ones(3) for name in names}, path)
    with capture_logs() as entries:
        loaded = load(_config(path))
    [told] = [
        entry["names"] for entry in entries if entry["event"] == "tensors_no_text_needs_left_out"
    ]
    kinds = ["".join("*" if char.isdigit() else char for char in name) for name in names]
    assert all(kind in told for kind in kinds)
    ids = torch.arange(20)[None]
    loaded.attention.begin_step([ScheduledSequence([0, 1], 0, 20)])
    logits = loaded.model(input_ids=ids, position_ids=ids, use_cache=False).logits
    torch.testing.assert_close(logits, tiny_model(family)(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("gpt2", "transformer.h.0.attn.bias_scale"),  # transformers ignores all it calls attn.bias
        ("gpt_neox", "gpt_neox.layers.0.attention.bias.lora_A.weight"),
        ("llama", "mtp.layers.0.up_proj.weight_scale"),
    ],
)
def test_what_changes_a_weight_is_not_left_out_for_its_name(
    family: str, name: str, tmp_path: Path
) -> None:
    path = save_tiny(family, tmp_path)
    _save(load_file(path / WEIGHTS) | {name: torch.ones(3)}, path)
    with pytest.raises(ModelLoadError, match=name):
        load(_config(path))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_numbers_that_are_no_weights_are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path)
    name = "model.layers.2.mlp.up_proj.weight"
    weights = load_file(path / WEIGHTS)
    _save(weights | {name: weights[name].to(dtype)}, path)
    with pytest.raises(ModelLoadError, match=f"floating point.*{name}"):
        load(_config(path))


def test_a_tied_embedding_needs_no_head_and_a_head_of_its_own_is_used(
    tmp_path: Path,
) -> None:
    path = save_tiny("llama", tmp_path, tie_word_embeddings=True)
    weights = load_file(path / WEIGHTS)
    assert "lm_head.weight" not in weights
    embedding = weights["model.embed_tokens.weight"]
    assert torch.equal(load(_config(path)).model.get_output_embeddings().weight, embedding)
    _save(weights | {"lm_head.weight": embedding * 2}, path)  # as transformers: the files win
    with capture_logs() as entries:
        model = load(_config(path)).model
    assert torch.equal(model.get_output_embeddings().weight, embedding * 2)
    assert torch.equal(model.get_input_embeddings().weight, embedding)
    [said] = [entry["message"] for entry in entries if entry["event"] == "transformers_warned"]
    assert "will NOT tie them" in said


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_beside_the_weights_is_refused(name: str, tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path)
    (path / name).write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ModelLoadError, match=f"{name}.*merge_and_unload"):
        load(_config(path))


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path)
    weights = load_file(path / WEIGHTS)
    weights["model.layers.2.mlp.up_proj.weight"][3, 4] = torch.nan
    _save(weights, path)
    with pytest.raises(ModelLoadError, match="NaN"):
        load(_config(path))


def test_a_dtype_too_narrow_for_the_weights_is_refused(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path)
    weights = load_file(path / WEIGHTS)
    _save(weights | {"model.embed_tokens.weight": weights["model.embed_tokens.weight"] * 1e6}, path)
    assert load(_config(path)).info.dtype == "float32"
    with pytest.raises(ModelLoadError, match="dtype is too narrow"):
        load(_config(path, dtype="float16"))
