"""GGUF files become the model they were written from, or are refused; nothing in them is lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import AutoModelForCausalLM

from server.engine.engine import EngineConfig
from server.engine.errors import ModelLoadError
from server.engine.loading import load
from server.engine.loading.gguf import convert_gguf, read_gguf
from server.engine.text import Tokenizer
from tests.models.checkpoint import save_tiny, tiny_tokenizer
from tests.models.gguf import save_tiny_gguf

IDS = torch.tensor([[257, 117, 115, 101, 114, 10, 72, 105, 258, 10, 257, 97, 65, 66, 67, 68]])
# gemma3's pattern of layers follows from their number
SIX: dict[str, Any] = {"num_hidden_layers": 6, "layer_types": None}


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(IDS).logits
    return found


def converted(path: Path, dtype: str = "auto") -> tuple[Path, Any]:
    folder = convert_gguf(path, path.parent / "models", dtype)
    return folder, AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("qwen3_moe", {"mlp_only_layers": []}),
        ("phi3", {}),
        ("phi3", {"sliding_window": None}),
        ("gemma2", {}),
        ("gemma3", SIX),
    ],
)
def test_a_file_gives_the_model_it_was_written_from(
    family: str, overrides: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    model = save_tiny_gguf(family, path, **overrides)
    torch.testing.assert_close(logits(converted(path)[1]), logits(model), atol=2e-6, rtol=0)


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_1, Kind.Q5_0, Kind.BF16, Kind.F16])
def test_quantised_weights_are_those_that_the_file_stands_for(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    model = save_tiny_gguf("llama", path, kind, intermediate_size=64)
    _, found = converted(path, "float32")
    torch.testing.assert_close(logits(found), logits(model), atol=2e-6, rtol=0)
    expected = torch.float16 if kind == Kind.F16 else torch.bfloat16
    assert converted(path)[1].dtype == expected


ROPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": ({"rope.scaling.type": "linear", "rope.scaling.factor": 2.0}, {"factor": 2.0}),
    "yarn": (
        {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 128,
        },
        {"factor": 4.0, "original_max_position_embeddings": 128},
    ),
}


@pytest.mark.parametrize("kind", ROPES)
def test_scaled_rotary_embeddings_are_kept(kind: str, tmp_path: Path) -> None:
    keys, fields = ROPES[kind]
    rope = {"rope_type": kind, "rope_theta": 10_000.0, **fields}
    path = tmp_path / "tiny.gguf"
    model = save_tiny_gguf("qwen2", path, keys=keys, rope_parameters=rope)
    found = logits(converted(path)[1])
    torch.testing.assert_close(found, logits(model), atol=2e-6, rtol=0)
    plain = tmp_path / "plain.gguf"
    save_tiny_gguf("qwen2", plain)
    assert not torch.allclose(found, logits(converted(plain)[1]), atol=1e-3)


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def _factors(model: Any) -> torch.Tensor:
    """What the model's rotary frequencies are divided by."""
    frequencies = model.model.rotary_emb.inv_freq
    steps = torch.arange(len(frequencies)) / len(frequencies)
    return LLAMA3["rope_theta"] ** -steps / frequencies  # type: ignore[operator]


def test_llama_3_keeps_the_factors_of_its_frequencies(tmp_path: Path) -> None:
    wide = {"rope_parameters": LLAMA3, "head_dim": 16, "num_hidden_layers": 1}
    reference = save_tiny_gguf("llama", tmp_path / "plain.gguf", **wide)
    factors = _factors(reference)
    assert {1.0, 8.0} < {round(float(f), 3) for f in factors}, "one between shows the formula"
    path = tmp_path / "tiny.gguf"
    save_tiny_gguf("llama", path, tensors={"rope_freqs.weight": factors}, **wide)
    torch.testing.assert_close(logits(converted(path)[1]), logits(reference), atol=2e-6, rtol=0)
    other = tmp_path / "other.gguf"
    save_tiny_gguf("llama", other, tensors={"rope_freqs.weight": factors * 1.1}, **wide)
    with pytest.raises(ModelLoadError, match="not those of Llama 3"):
        convert_gguf(other, tmp_path / "models")


def test_its_tokenizer_and_template_are_read(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    save_tiny_gguf("llama", path)
    tokenizer = Tokenizer.load(convert_gguf(path, tmp_path / "models"))
    chat = [{"role": "user", "content": "Zum Über-Fluß: the 汉字"}]
    found = tokenizer.render_chat(chat)
    plain = tiny_tokenizer()
    text = plain.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(found.token_ids) == text
    assert len(found.token_ids) == len(plain(text).input_ids) - 2, "the merges of t, h and e"
    assert tokenizer.end_token_ids == {256, 258}, "of a turn and of a text"
    assert tokenizer.encode("<|im_end|>") != [258]


@pytest.mark.parametrize("adds_bos", [False, True])
def test_a_vocabulary_of_sentencepiece_is_read(adds_bos: bool, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    save_tiny_gguf("llama", path, sentencepiece=True, adds_bos=adds_bos)
    tokenizer = Tokenizer.load(convert_gguf(path, tmp_path / "models"))
    assert tokenizer.adds_bos_token is adds_bos
    found = tokenizer.encode("the \u00e9t\u00e9\nto the", add_special_tokens=False)
    pieces = [tokenizer.token_text(token) for token in found]
    assert pieces[0] == pieces[-1] == " the"
    assert [tokenizer.token_bytes(token) for token in found[2:4]] == [b"\xc3", b"\xa9"]
    assert tokenizer.decode(found).strip() == "the \u00e9t\u00e9\nto the"
    assert tokenizer.end_token_ids == {2}


def test_the_engine_loads_it_and_knows_it_again(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    save_tiny_gguf("llama", path, Kind.Q8_0, intermediate_size=64)

    def fingerprint(cache: str) -> str:
        folder = convert_gguf(path, tmp_path / cache)
        return load(EngineConfig(str(folder), device="cpu", num_threads=1)).spec.fingerprint

    assert fingerprint("one") == fingerprint("two")


def test_a_file_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = tmp_path / "tiny.gguf", tmp_path / "models"
    save_tiny_gguf("llama", path)
    folder = convert_gguf(path, cache)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)  # not to be called
    assert convert_gguf(path, cache) == folder
    moved = path.rename(tmp_path / "moved.gguf")
    assert convert_gguf(moved, cache) == folder, "by content"
    assert [entry.name for entry in cache.iterdir()] == [folder.name]


def test_a_conversion_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = tmp_path / "tiny.gguf", tmp_path / "models"
    model = type(save_tiny_gguf("llama", path))

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(ModelLoadError, match="no space left"):
        convert_gguf(path, cache)
    assert list(cache.iterdir()) == []


def _key(**keys: Any) -> Callable[[Path], object]:
    return lambda path: save_tiny_gguf("llama", path, keys=keys)


def _tensor(name: str) -> Callable[[Path], object]:
    return lambda path: save_tiny_gguf("llama", path, tensors={name: torch.ones(32)})


def _cut(path: Path) -> None:
    save_tiny_gguf("llama", path)
    path.write_bytes(path.read_bytes()[:900])


def _renamed(path: Path) -> None:
    """Of the architecture `mamba`."""
    save_tiny_gguf("llama", path)
    path.write_bytes(path.read_bytes().replace(b"llama", b"mamba"))


FAULTS: dict[str, Callable[[Path], object]] = {
    "does not begin as a GGUF": lambda path: path.write_bytes(b"GGML" + bytes(100)),
    "cut off or damaged": _cut,
    "architecture that is not read from GGUF": _renamed,
    "rope.scaling.yarn_log_multiplier": _key(**{"rope.scaling.yarn_log_multiplier": 0.1}),
    "by 'longrope'": _key(**{"rope.scaling.type": "longrope"}),
    "expert_count = 8": _key(expert_count=8),
    "rope.dimension_count = 4": _key(**{"rope.dimension_count": 4}),
    "another number of heads in every layer": _key(**{"attention.head_count_kv": [2, 2, 1, 2]}),
    "some of its tensors are not understood": _tensor("blk.0.attn_gate.weight"),
    "lacks weights": _key(block_count=5),
    "in another shape": _key(feed_forward_length=47),
}


@pytest.mark.parametrize("expected", FAULTS)
def test_what_is_not_understood_is_refused(expected: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    FAULTS[expected](path)
    with pytest.raises(ModelLoadError) as caught:
        convert_gguf(path, tmp_path / "models")
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_part_of_a_split_file_is_refused_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "tiny-00001-of-00002.gguf"
    path.touch()
    with pytest.raises(ModelLoadError, match=f"llama-gguf-split --merge {path.name}"):
        convert_gguf(path, tmp_path / "models")


def test_too_little_room_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.gguf"
    save_tiny_gguf("llama", path)
    monkeypatch.setattr("server.engine.loading.gguf.convert.free_memory_bytes", lambda: 1000)
    with pytest.raises(ModelLoadError, match="bytes of memory in float32; 1000 are free"):
        convert_gguf(path, tmp_path / "models")


def test_the_head_of_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    model = save_tiny_gguf("llama", path, tensors={"rope_freqs.weight": torch.arange(1.0, 5.0)})
    file = read_gguf(path)
    assert file.metadata["llama.embedding_length"] == 32
    assert math.isclose(file.metadata["llama.rope.freq_base"], 10_000)
    assert file.tensors["token_embd.weight"].shape == tuple(
        model.get_input_embeddings().weight.shape  # type: ignore[operator]
    )
    assert file.float32_values("rope_freqs.weight") == [1.0, 2.0, 3.0, 4.0]
    assert file.dtype == "float32"


def test_a_tiny_checkpoint_in_pickles_is_refused_with_the_command(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path / "model")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="save_pretrained"):
        load(EngineConfig(str(path), device="cpu", num_threads=1))
