"""A LoRA adapter merged at load gives what peft gives, all of it or nothing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from server.engine.engine import EngineConfig
from server.engine.errors import ModelLoadError
from server.engine.loading import load
from server.engine.loading.adapter import check_adapter, merge_adapter
from tests.models.checkpoint import save_tiny

peft = pytest.importorskip("peft", reason="the extra [adapters] is not installed")

# What peft asks of transformers is for them to settle.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

IDS = torch.tensor([[257, 72, 105, 258, 10, 97, 98, 99]])
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

KINDS: dict[str, dict[str, Any]] = {
    "attention": {"target_modules": ["q_proj", "v_proj"]},
    "every map": {"target_modules": "all-linear", "use_rslora": True},
    "dora": {"target_modules": ["o_proj", "down_proj"], "use_dora": True},
    "with a head of its own": {"target_modules": ["up_proj"], "modules_to_save": ["lm_head"]},
}


def base(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits(model: Any) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model(IDS).logits
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("adapters") / "tiny")


def save_adapter(model: Path, folder: Path, **options: Any) -> Any:
    """Write an adapter with random weights; returns the model with it beside its own weights."""
    given = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **options}
    adapted = peft.get_peft_model(base(model), peft.LoraConfig(**given))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    adapted.save_pretrained(folder)
    return adapted.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_the_logits_that_peft_gives(kind: str, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    adapted = save_adapter(model, folder, **KINDS[kind])
    found = logits(merge_adapter(base(model), folder))
    torch.testing.assert_close(found, logits(adapted), atol=2e-5, rtol=0)
    assert not torch.allclose(found, logits(base(model)), atol=1e-2)


def test_it_is_the_merged_model_that_is_served(model: Path, tmp_path: Path) -> None:
    folder, merged = tmp_path / "polite", tmp_path / "merged"
    save_adapter(model, folder, target_modules="all-linear").merge_and_unload().save_pretrained(
        merged
    )
    for file in model.glob("token*"):
        shutil.copy(file, merged)
    given = EngineConfig(str(model), adapter=str(folder), device="cpu", num_threads=1)
    loaded = load(given)
    alone = load(EngineConfig(str(model), device="cpu", num_threads=1))
    whole = load(EngineConfig(str(merged), device="cpu", num_threads=1))
    assert loaded.spec.name == "tiny+polite"
    assert loaded.spec.fingerprint == whole.spec.fingerprint != alone.spec.fingerprint
    names = [name for name, _ in loaded.model.named_modules()]
    assert names == [name for name, _ in alone.model.named_modules()], "nothing of peft is left"
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def _edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


def _tensors(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


def _without_one(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(sorted(tensors.items())[1:])


def _with_one_more(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    [first, *_] = sorted(tensors)
    return tensors | {first.replace("layers.0", "layers.7"): tensors[first].clone()}


def _wider(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([tensor, tensor], -1) for name, tensor in tensors.items()}


def _not_a_number(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor * float("nan") for name, tensor in tensors.items()}


FAULTS: dict[str, Callable[[Path], object]] = {
    "is no folder": shutil.rmtree,
    f"holds no {CONFIG}": lambda folder: (folder / CONFIG).unlink(),
    "save it again with peft": lambda folder: (folder / WEIGHTS).rename(
        folder / "adapter_model.bin"
    ),
    "not JSON": lambda folder: (folder / CONFIG).write_text("{"),
    "kind 'IA3'": lambda folder: _edit(folder, peft_type="IA3"),
    "cannot be merged": lambda folder: _edit(folder, alora_invocation_tokens=[1, 2]),
    "cannot be read": lambda folder: (folder / WEIGHTS).write_bytes(b"\1"),
    "and the file lacks": lambda folder: _tensors(folder, _without_one),
    "which has no place for": lambda folder: _tensors(folder, _with_one_more),
    "size mismatch": lambda folder: _tensors(folder, _wider),
    "NaN": lambda folder: _tensors(folder, _not_a_number),
    "adapter cannot be used": lambda folder: _edit(folder, target_modules=["absent"]),
}


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize("expected", FAULTS)
def test_what_is_no_adapter_of_the_model_is_refused(
    expected: str, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    save_adapter(model, folder, target_modules=["q_proj", "v_proj"])
    FAULTS[expected](folder)
    with pytest.raises(ModelLoadError) as caught:
        load(EngineConfig(str(model), adapter=str(folder), device="cpu", num_threads=1))
    assert expected in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_peft_the_command_that_installs_it_is_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_adapter(model, tmp_path, target_modules=["q_proj"])
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelLoadError, match=r"pip install 'coxswain\[adapters\]'"):
        check_adapter(tmp_path)
