"""The tiny models are what the other tests take them for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from . import FAMILIES, REFUSED_FAMILIES, VOCAB_SIZE, save_tiny, tiny_model, tiny_tokenizer

IDS = torch.tensor([[72, 101, 108, 108, 111, 32, 119, 111, 114, 108, 100, 33]])


@pytest.mark.parametrize("family", [*FAMILIES, *REFUSED_FAMILIES])
@torch.inference_mode()
def test_logits_are_finite_varied_and_reproducible(family: str) -> None:
    first = tiny_model(family, seed=3)(IDS, use_cache=False).logits
    again = tiny_model(family, seed=3)(IDS, use_cache=False).logits
    other = tiny_model(family, seed=4)(IDS, use_cache=False).logits
    assert first.isfinite().all()
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert 0.05 < first.std() < 20
    assert len(set(first.argmax(-1).flatten().tolist())) > 2


@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_every_earlier_token_matters(family: str) -> None:
    """Attention is strong enough that a test of KV isolation or of scopes can fail."""
    model = tiny_model(family)
    changed = IDS.clone()
    changed[0, 5] = 200
    difference = (model(changed).logits - model(IDS).logits).abs().amax(-1)[0]
    assert (difference[:5] < 1e-5).all()
    assert (difference[5:] > 1e-3).all()


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    tiny_model("llama", seed=1)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("text", ["Hello world", "naïve — 日本語 🙂", " two  spaces\n"])
def test_the_tokenizer_round_trips(text: str) -> None:
    tokenizer = tiny_tokenizer()
    assert len(tokenizer) == VOCAB_SIZE
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text


def test_a_saved_model_is_the_same_when_loaded(tmp_path: Path) -> None:
    path = save_tiny("qwen3", tmp_path / "model", seed=2, dtype=torch.bfloat16)
    loaded = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(path)
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert rendered == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor([tokenizer.encode(rendered, add_special_tokens=False)])
    assert ids[0, 0] == 257
    with torch.inference_mode():
        expected = tiny_model("qwen3", seed=2, dtype=torch.bfloat16)(ids).logits
        assert torch.equal(loaded(ids).logits, expected)
