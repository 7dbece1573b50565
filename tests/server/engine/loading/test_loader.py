"""From a folder to a model that is ready to serve, or to a message that says why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs

from server.engine.attention import ScheduledSequence
from server.engine.engine import EngineConfig
from server.engine.errors import EngineError, ModelLoadError
from server.engine.loading import NEUTRAL_TEXTS, LoadedModel, load, loader
from steering.errors import SteeringError
from steering.sites import Site, SitePoint
from tests.models.checkpoint import save_tiny
from tests.models.tiny import VOCAB_SIZE, tiny_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> LoadedModel:
    return load(_config(checkpoint))


def _config(path: Path, **changes: Any) -> EngineConfig:
    return EngineConfig(str(path), device="cpu", num_threads=1, **changes)


def _edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_automatic_values_are_resolved(loaded: LoadedModel, checkpoint: Path) -> None:
    config = loaded.config
    assert (config.served_name, config.device, config.dtype) == ("tiny-llama", "cpu", "float32")
    assert (config.max_model_len, config.num_threads) == (512, 1)
    token_bytes = 4 * 2 * 2 * 8 * 4  # layers, keys and values, heads, width, float32
    assert config.kv_cache_bytes == loaded.info.num_kv_blocks * 16 * token_bytes
    assert loaded.info.vocab_size == VOCAB_SIZE
    assert loaded.spec.name == "tiny-llama"
    assert loaded.spec.max_abs == torch.finfo(torch.float32).max
    assert load(_config(checkpoint, served_name="mine", max_model_len=64)).info.max_model_len == 64


def test_the_model_only_infers(loaded: LoadedModel) -> None:
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_logits_are_those_of_the_bare_model(loaded: LoadedModel) -> None:
    ids = torch.arange(30)[None]
    expected = tiny_model("llama")(input_ids=ids).logits[0].detach()
    loaded.attention.begin_step([ScheduledSequence([5, 3], 0, 30)])
    logits = loaded.model(
        input_ids=ids,
        position_ids=ids,
        use_cache=False,
        logits_to_keep=torch.tensor([0, 29, 7]),
    ).logits[0]
    torch.testing.assert_close(logits, expected[[0, 29, 7]], atol=1e-4, rtol=1e-4)


def test_norms_are_means_over_neutral_text_without_its_first_tokens(loaded: LoadedModel) -> None:
    model = tiny_model("llama")
    norms: list[torch.Tensor] = []
    for text in NEUTRAL_TEXTS:
        ids = torch.tensor([loaded.tokenizer.encode(text)])
        out = model(input_ids=ids, output_hidden_states=True)
        norms.append(torch.stack(out.hidden_states)[:-1, 0, 4:].detach().norm(dim=-1))
    means = torch.cat(norms, dim=1).mean(dim=1)  # inputs of the layers
    spec = loaded.spec.resid_norms
    for layer, expected in enumerate(means.tolist()):
        assert spec[SitePoint(layer, Site.RESID_PRE)] == pytest.approx(expected, rel=1e-4)
    assert spec[SitePoint(0, Site.RESID_POST)] == spec[SitePoint(1, Site.RESID_PRE)]
    per_layer = len(Site) - 2
    assert len(spec) == 4 * per_layer + 2  # and embed, final
    assert all(norm > 0 for norm in spec.values())


def test_dtype_changes_the_fingerprint(loaded: LoadedModel, checkpoint: Path) -> None:
    half = load(_config(checkpoint, dtype="bfloat16"))
    assert half.config.dtype == "bfloat16"
    assert half.spec.fingerprint != loaded.spec.fingerprint
    again = load(_config(checkpoint, max_model_len=100, pack_weights=False))
    assert again.spec.fingerprint == loaded.spec.fingerprint


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "qwen3_moe"])
def test_other_families_load(family: str, tmp_path: Path) -> None:
    model = load(_config(save_tiny(family, tmp_path)))
    assert model.spec.family.startswith(family)
    assert model.info.device == "cpu"


def test_code_named_in_a_configuration_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path)
    nested = {"deeper": [{"auto_map": {"AutoModelForCausalLM": "evil.Evil"}}]}
    _edit_json(path / "config.json", extra=nested)
    with pytest.raises(EngineError, match="auto_map") as caught:
        load(_config(path))
    assert caught.value.param == "model"


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path)
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(EngineError, match="safetensors"):
        load(_config(path))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"config\.json"):
        load(_config(tmp_path))
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(EngineError, match="not JSON"):
        load(_config(tmp_path))


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path)
    weights = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(EngineError, match="cannot be read"):
        load(_config(path))


def test_weights_that_are_missing_or_misshapen_are_refused(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path)
    weights = load_file(path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineError, match=r"layers\.1\.mlp\.up_proj"):
        load(_config(path))


def test_unknown_architectures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SteeringError, match="attention"):
        load(_config(save_tiny("falcon", tmp_path)))


def _edited_tokenizer(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((path / "tokenizer.json").read_text())
    edit(document)
    (path / "tokenizer.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda t: t["model"].update(vocab={}), "no tokens for English prose"),
        (
            lambda t: t["model"].update(vocab=dict.fromkeys(t["model"]["vocab"], 7)),
            "always the same one",
        ),
        (
            lambda t: t["model"]["vocab"].update({"a": 260}),
            "such as 'a', with ids from 260",
        ),
        (lambda t: t.clear(), "tokenizer cannot be used"),
    ],
)
def test_a_tokenizer_that_cannot_be_this_models_is_refused(
    edit: Callable[[dict[str, Any]], object], expected: str, tmp_path: Path
) -> None:
    path = save_tiny("llama", tmp_path)
    _edited_tokenizer(path, edit)
    with pytest.raises(ModelLoadError, match=expected):
        load(_config(path))


def test_added_tokens_without_an_embedding_are_told(
    tmp_path: Path,
) -> None:
    with capture_logs() as entries:
        load(_config(save_tiny("llama", tmp_path, vocab_size=VOCAB_SIZE - 1, pad_token_id=None)))
    [told] = [entry for entry in entries if entry["event"] == "tokens_without_embedding"]
    assert (told["count"], told["example"]) == (1, "<|pad|>")


def test_a_model_that_cannot_end_an_answer_is_told(
    tmp_path: Path,
) -> None:
    path = save_tiny("llama", tmp_path)
    (path / "generation_config.json").unlink()
    _edit_json(path / "tokenizer_config.json", eos_token=None)
    _edit_json(path / "config.json", eos_token_id=None)
    with capture_logs() as entries:
        load(_config(path))
    assert "no_end_token" in [entry["event"] for entry in entries]


@pytest.mark.parametrize("most", [1, 2, 4, 5])
def test_norms_are_numbers_however_short_the_context(most: int, checkpoint: Path) -> None:
    spec = load(_config(checkpoint, max_model_len=most)).spec
    assert all(0 < norm < torch.inf for norm in spec.resid_norms.values())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"vocab_size": 10**12}, "needs .* bytes on cpu in float32; .* are free"),
        ({"num_hidden_layers": 10**9}, "1000000000 layers, but the weights have only 39 tensors"),
        ({"num_hidden_layers": 3}, r"does not use: model\.layers\.3\."),
        ({"num_hidden_layers": 5, "layer_types": None}, r"lacks weights: model\.layers\.4\."),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"quantised \(gptq\)"),
        ({"text": {"compression_config": {"bits": 4}}}, "quantised"),
        ({"transformers_weights": "other.safetensors"}, "transformers_weights"),
        ({"model_type": "nonsense"}, "config.json cannot be used: .*nonsense"),
        ({"model_type": None}, "config.json cannot be used"),
        ({"hidden_size": "32"}, "config.json cannot be used: .*hidden_size"),
    ],
)
def test_a_configuration_that_is_not_of_these_weights_is_refused(
    changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    path = save_tiny("llama", tmp_path)
    _edit_json(path / "config.json", **changes)
    with pytest.raises(ModelLoadError, match=expected):
        load(_config(path))


def test_a_context_beyond_the_models_is_refused_before_the_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_tiny("llama", tmp_path)
    monkeypatch.setattr(loader, "load_weights", None)  # not to be called
    for changes in ({"max_model_len": 513}, {"model": str(path / "absent")}):
        with pytest.raises(ModelLoadError, match=r"max_model_len is 513|does not exist"):
            load(replace(_config(path), **changes))
    (path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelLoadError, match="tokenizer cannot be used"):
        load(_config(path))


def test_a_rank_of_a_distributed_checkpoint_is_refused(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path)
    (path / "shard-00000-model-00001-of-00001.safetensors").touch()
    with pytest.raises(ModelLoadError, match="distributed checkpoint"):
        load(_config(path))
