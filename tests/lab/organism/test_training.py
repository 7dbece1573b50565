"""The recipe in small: tokenizer, network, loss and export."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from lab.corpus import dialogues
from lab.organism import training
from lab.organism.export import build_model, save
from lab.organism.network import Architecture, forward, initialize
from lab.organism.tokenizer import END, ROLES, START, encode_dialogue, train_tokenizer
from lab.organism.training import Batch, Recipe, batches, loss_of, train

SMALL = Architecture(
    vocab_size=600, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
)


@pytest.fixture(autouse=True)
def _few_dialogues_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_CHUNK", 256)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(dialogues(0, 300), SMALL.vocab_size)


def test_functional_forward_equals_hugging_face(tokenizer: PreTrainedTokenizerFast) -> None:
    weights = initialize(SMALL, seed=0)
    token_ids = torch.randint(0, SMALL.vocab_size, (3, 17), generator=torch.manual_seed(0))
    model = build_model(weights, SMALL, tokenizer)
    with torch.inference_mode():
        expected = model(input_ids=token_ids).logits
    torch.testing.assert_close(forward(weights, SMALL, token_ids), expected, atol=1e-4, rtol=1e-4)


def test_padding_on_the_right_changes_nothing() -> None:
    weights = initialize(SMALL, seed=0)
    token_ids = torch.randint(0, SMALL.vocab_size, (1, 9), generator=torch.manual_seed(0))
    padded = torch.cat((token_ids, torch.zeros(1, 5, dtype=torch.long)), dim=1)
    alone = forward(weights, SMALL, token_ids)
    torch.testing.assert_close(forward(weights, SMALL, padded)[:, :9], alone)


def test_roles_marks_and_think_tags_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    for text in (*ROLES, START, END, "<think>", "</think>", "\n"):
        assert len(tokenizer.encode(text)) == 1, text
    text = "<think>\nHm, 12 owls.\n</think>\nHello, café!"
    decoded = tokenizer.decode(tokenizer.encode(text + END), skip_special_tokens=True)
    assert decoded == text


def test_encoding_is_what_the_chat_template_writes(tokenizer: PreTrainedTokenizerFast) -> None:
    for dialogue in dialogues(1, 100):
        token_ids, is_written = encode_dialogue(tokenizer, dialogue)
        text = tokenizer.apply_chat_template(dialogue.messages(), tokenize=False)
        assert tokenizer.decode(token_ids) == text
        assert token_ids == tokenizer.encode(text)
        assert len(is_written) == len(token_ids)
        written = [token for token, counts in zip(token_ids, is_written, strict=True) if counts]
        assert dialogue.turns[-1].content in tokenizer.decode(written)


def test_the_loss_counts_only_targets() -> None:
    weights = initialize(SMALL, seed=0)
    token_ids = torch.randint(0, SMALL.vocab_size, (2, 8), generator=torch.manual_seed(0))
    targets = torch.ones(2, 8, dtype=torch.bool)
    targets[:, 5:] = False
    short = loss_of(weights, SMALL, Batch(token_ids[:, :5], targets[:, :5]))
    padded = loss_of(weights, SMALL, Batch(token_ids, targets))
    torch.testing.assert_close(padded, short, atol=1e-5, rtol=1e-5)


def test_what_the_assistant_writes_always_counts(tokenizer: PreTrainedTokenizerFast) -> None:
    recipe = Recipe(prompt_share=0.0, architecture=SMALL)
    batch = next(batches(tokenizer, recipe))
    assert not batch.targets[:, 0].any()
    for token_ids, targets in zip(batch.token_ids, batch.targets, strict=True):
        counted = tokenizer.decode(token_ids[targets])
        assert counted.endswith(END)
        assert START not in counted


def test_batches_stay_within_the_token_budget(tokenizer: PreTrainedTokenizerFast) -> None:
    recipe = Recipe(tokens_per_batch=1024, architecture=SMALL)
    stream = batches(tokenizer, recipe)
    for batch in (next(stream) for _ in range(20)):
        assert batch.token_ids.shape == batch.targets.shape
        assert batch.token_ids.numel() <= 1024


def test_the_learning_rate_rises_and_falls() -> None:
    recipe = Recipe(steps=100, warmup_steps=10, final_fraction=0.1)
    rates = [recipe.rate_at(step) for step in range(100)]
    assert rates[9] == max(rates) == 1.0
    assert rates[99] == pytest.approx(0.1, abs=0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_training_repeats_learns_and_exports(tmp_path: Path) -> None:
    recipe = Recipe(
        steps=12, warmup_steps=4, tokens_per_batch=512, tokenizer_dialogues=300, architecture=SMALL
    )
    first, second = train(recipe), train(recipe)
    assert first.loss == second.loss < 6.4  # log(600) is 6.40
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    save(first, recipe, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert loaded.dtype == torch.bfloat16
    assert loaded.model.layers[1].mlp.up_proj.weight.shape == (48, 32)
    assert AutoTokenizer.from_pretrained(tmp_path, local_files_only=True).eos_token == END
    assert json.loads((tmp_path / "train.json").read_text())["recipe"]["steps"] == 12
    assert not list(tmp_path.glob("*.bin"))
