"""Quantised checkpoints are served as the weights they stand for, or refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from server.bake.options import BakeOperation, BakeOptions
from server.bake.run import bake
from server.engine.engine import EngineConfig
from server.engine.errors import ModelLoadError
from server.engine.loading import LoadedModel, load
from steering.directions import Direction, DirectionKind
from steering.documents import Operation, PositionContext
from steering.formats import dump_direction
from steering.plan import compile_plan
from steering.sites import Site
from tests.models.by_hand import steered_logits
from tests.models.families import family_model
from tests.models.paths import LLAMA
from tests.models.quantised import edit_tensors, save_fp8, save_mxfp4, set_config
from tests.models.tiny import tiny_model
from tests.server.engine.harness import EngineHarness
from tests.steering.gate_oracle import GateOracle
from tests.steering.oracle_runtime import OracleRuntime
from tests.steering.samples import random_steer

Weights = dict[str, Tensor]

KINDS: dict[str, tuple[Callable[[], PreTrainedModel], Callable[..., Weights]]] = {
    "fp8": (lambda: family_model("llama"), save_fp8),
    "fp8 experts": (lambda: family_model("qwen3_moe", moe_intermediate_size=32), save_fp8),
    "mxfp4": (lambda: family_model("gpt_oss", intermediate_size=64), save_mxfp4),
}
REFUSED = ("gptq", "awq", "bitsandbytes", "torchao", "compressed-tensors", "fbgemm_fp8", "hqq")


def served(path: Path, **settings: Any) -> LoadedModel:
    defaults: dict[str, Any] = {
        "device": "cpu",
        "num_threads": 1,
        "block_size": 4,
        "max_model_len": 64,
        "kv_cache_bytes": 1 << 20,
        "max_chunk_seconds": 0.0,
    }
    return load(EngineConfig(str(path), **{**defaults, **settings}))


@torch.no_grad()
def with_weights(model: PreTrainedModel, weights: Weights) -> PreTrainedModel:
    """The plain model with the weights that a quantised checkpoint stands for."""
    state = model.state_dict()
    for name, value in weights.items():
        if name in state:
            state[name].copy_(value)
    return model


@pytest.mark.parametrize("kind", ["fp8", "mxfp4"])
def test_a_quantised_checkpoint_is_served_and_steered_as_what_it_stands_for(
    kind: str, tmp_path: Path
) -> None:
    make, save = KINDS[kind]
    expected = save(make(), tmp_path)
    loaded = served(tmp_path)
    steer = random_steer(Operation.ADD, Site.MLP_OUT, (1,), loaded.spec, np.random.default_rng(0))
    harness = EngineHarness(loaded)
    requests = [
        harness.request(list(b"The river"), plan)
        for plan in (None, compile_plan([steer], [], loaded.spec))
    ]
    plain = with_weights(make(), expected)
    for steers, request, sink in zip(([], [steer]), requests, harness.run(*requests), strict=True):
        known = [*b"The river", *sink.token_ids[:-1]]
        oracle = OracleRuntime(loaded.spec, PositionContext(9), steers, GateOracle())
        want = steered_logits(plain, LLAMA, known, oracle.edit)[8:]
        got = torch.stack(harness.logits[request.request_id])
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_dequantised_exactly(kind: str, tmp_path: Path) -> None:
    make, save = KINDS[kind]
    expected = save(make(), tmp_path)
    parameters = dict(served(tmp_path, pack_weights=False).model.named_parameters())
    assert {parameter.dtype for parameter in parameters.values()} == {torch.float32}
    stacked = _stacked(expected, parameters)
    assert len(stacked) >= 4
    for name, value in stacked.items():
        torch.testing.assert_close(parameters[name].data, value, rtol=0, atol=1e-7)


def _stacked(expected: Weights, parameters: dict[str, Any]) -> Weights:
    """Experts that are apart in the files, as the model stacks them."""
    found = {name: value for name, value in expected.items() if name in parameters}
    for name in parameters:
        if name.endswith("experts.down_proj") and name not in expected:
            stem = name.removesuffix("down_proj")
            found[name] = torch.stack([expected[f"{stem}{e}.down_proj.weight"] for e in range(4)])
    return found


def _without(ending: str) -> Callable[[Weights], Weights]:
    def change(weights: Weights) -> Weights:
        lost = next(name for name in weights if name.endswith(ending))
        return {name: value for name, value in weights.items() if name != lost}

    return change


def _with(name: str, value: Tensor) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, name: value}


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("fp8", _without("_scale_inv"), r"not in floating point: model\S+ \(F8_E4M3\)"),
        (
            "fp8",
            _with("model.norm.weight_scale_inv", torch.ones(1, 1)),
            "parts that do not make up the weights of: model.norm.weight",
        ),
        (
            "fp8",
            _with("model.layers.7.mlp.up_proj.weight_scale_inv", torch.ones(1, 1)),
            r"does not use: model\.layers\.7\.mlp\.up_proj\.weight",
        ),
        ("mxfp4", _without("down_proj_scales"), r"do not make up the weights of: \S+down_proj"),
        (
            "mxfp4",
            _with("model.layers.0.mlp.experts.other_scales", torch.ones(1, dtype=torch.uint8)),
            "does not use: model.layers.0.mlp.experts.other_scales",
        ),
    ],
)
def test_parts_of_weights_are_accounted_for(
    kind: str, change: Callable[[Weights], Weights], message: str, tmp_path: Path
) -> None:
    make, save = KINDS[kind]
    save(make(), tmp_path)
    edit_tensors(tmp_path, change)
    with pytest.raises(ModelLoadError, match=message):
        served(tmp_path)


def test_scales_of_weights_that_no_text_needs_are_left_out_with_them(tmp_path: Path) -> None:
    """DeepSeek-V3's layer 61 guesses further tokens; its files have it, the model does not."""
    save_fp8(family_model("deepseek_v3", moe_intermediate_size=32), tmp_path)
    further = "model.layers.61.mlp.up_proj.weight"
    codes = torch.ones(16, 16).to(torch.float8_e4m3fn)
    edit_tensors(tmp_path, _with(further, codes))
    edit_tensors(tmp_path, _with(f"{further}_scale_inv", torch.ones(1, 1)))
    served(tmp_path)
    edit_tensors(tmp_path, _with("model.layers.61.norm.weight_scale_inv", torch.ones(1, 1)))
    with pytest.raises(ModelLoadError, match=r"does not use: model\.layers\.61\.norm"):
        served(tmp_path)


def test_eight_bit_weights_that_are_not_said_to_be_quantised_are_refused(tmp_path: Path) -> None:
    save_fp8(tiny_model("llama"), tmp_path)
    set_config(tmp_path, quantization_config=None)
    edit_tensors(
        tmp_path, lambda weights: {k: v for k, v in weights.items() if "_scale_inv" not in k}
    )
    with pytest.raises(ModelLoadError, match=r"not in floating point: model\S+ \(F8_E4M3\)"):
        served(tmp_path)


@pytest.mark.parametrize("method", REFUSED)
def test_other_methods_are_refused_by_name_with_a_remedy(method: str, tmp_path: Path) -> None:
    family_model("llama").save_pretrained(tmp_path)
    set_config(tmp_path, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(ModelLoadError) as caught:
        served(tmp_path)
    assert str(caught.value) == (
        f"the checkpoint is quantised ({method}); of quantised ones those of fp8 and mxfp4 are "
        "read, and GGUF files. Give the original, or a GGUF file of it"
    )


def test_a_quantised_checkpoint_is_not_baked(tmp_path: Path) -> None:
    save_fp8(tiny_model("llama"), tmp_path / "in")
    path = tmp_path / "direction.safetensors"
    vector = {"vector": torch.ones(32)}
    path.write_bytes(
        dump_direction(Direction("push", DirectionKind.VECTOR, Site.MLP_OUT, (0,), vector))
    )
    options = BakeOptions(tmp_path / "in", None, direction=path, operation=BakeOperation.ABLATE)
    with pytest.raises(ModelLoadError, match=r"quantised \(fp8\).*bake that and quantise"):
        bake(options)
