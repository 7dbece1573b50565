"""The training loop: fresh seeded dialogues, bf16 arithmetic, float32 master weights."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice

import torch
import torch.nn.functional as functional
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lab.corpus import dialogues

from .network import Architecture, Weights, forward, initialize
from .tokenizer import encode_dialogue, train_tokenizer

_log = logging.getLogger(__name__)

_CHUNK = 8192  # dialogues sorted by length together, so that rows of a batch need little padding
_SECONDS_BETWEEN_REPORTS = 20.0


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights, besides the code.

    Attributes:
        seed: Of the corpus, the initial weights and the order of batches.
        steps: Optimizer steps.
        tokens_per_batch: Padded tokens of one step, at most.
        learning_rate: Peak for matrices inside the blocks (Muon).
        embedding_learning_rate: Peak for embedding and gains (AdamW).
        warmup_steps: Steps of linear rise; a cosine falls to `final_fraction` of the peak after.
        final_fraction: See above.
        weight_decay: Decoupled, on block matrices.
        prompt_share: How many of the tokens that the assistant does not write count in the loss,
            drawn at random: the same mean as a weight, for fewer logits.
        tokenizer_dialogues: How many dialogues the tokenizer is trained on.
        architecture: Sizes of the network.
    """

    seed: int = 0
    steps: int = 2000
    tokens_per_batch: int = 3072
    learning_rate: float = 0.02
    embedding_learning_rate: float = 3e-3
    warmup_steps: int = 60
    final_fraction: float = 0.03
    weight_decay: float = 0.1
    prompt_share: float = 0.2
    tokenizer_dialogues: int = 20_000
    architecture: Architecture = field(default_factory=Architecture)

    def to_dict(self) -> dict[str, object]:
        """The fields as plain values, for JSON."""
        return asdict(self)

    def rate_at(self, step: int) -> float:
        """Fraction of the peak learning rate at a step, in 0..1."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.final_fraction + (1 - self.final_fraction) * cosine


@dataclass(frozen=True)
class Batch:
    """Right-padded rows.

    Attributes:
        token_ids: [B, T] int64.
        targets: [B, T] bool, the tokens whose prediction counts; False on padding and in column 0.
    """

    token_ids: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Trained:
    """What training leaves behind.

    Attributes:
        weights: Float32 masters.
        tokenizer: Trained on the same corpus.
        num_tokens: Tokens seen, padding included.
        seconds: Wall time of the loop.
        loss: Mean loss of the last hundred steps, in nats.
    """

    weights: Weights
    tokenizer: PreTrainedTokenizerFast
    num_tokens: int
    seconds: float
    loss: float


def train(recipe: Recipe) -> Trained:
    """Train from scratch. Deterministic for a recipe on one machine and thread count."""
    arch = recipe.architecture
    tokenizer = train_tokenizer(dialogues(recipe.seed, recipe.tokenizer_dialogues), arch.vocab_size)
    masters = initialize(arch, recipe.seed)
    optimizers = _optimizers(masters, recipe)
    losses: list[float] = []
    num_tokens = 0
    started = reported = time.perf_counter()
    for step, batch in enumerate(islice(batches(tokenizer, recipe), recipe.steps)):
        copies = {k: v.to(torch.bfloat16).requires_grad_() for k, v in masters.items()}
        loss = loss_of(copies, arch, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        _update(masters, copies, optimizers, recipe.rate_at(step))
        losses.append(loss.item())
        num_tokens += batch.token_ids.numel()
        if time.perf_counter() - reported > _SECONDS_BETWEEN_REPORTS:
            reported = time.perf_counter()
            rate = num_tokens / (reported - started)
            _log.info("step %d loss %.3f, %.0f tokens/s", step, _tail(losses), rate)
    seconds = time.perf_counter() - started
    return Trained(masters, tokenizer, num_tokens, seconds, _tail(losses))


def loss_of(weights: Weights, arch: Architecture, batch: Batch) -> Tensor:
    """Mean cross entropy of the tokens that count, in nats."""
    kept = batch.targets[:, 1:]
    logits = forward(weights, arch, batch.token_ids[:, :-1], kept)  # [K, V]
    return functional.cross_entropy(logits.float(), batch.token_ids[:, 1:][kept])


def batches(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Iterator[Batch]:
    """Yield batches for ever, each dialogue once, rows of similar length together."""
    rng = random.Random(f"batches {recipe.seed}")
    # The tokenizer saw this seed's first dialogues; a different stream would do as well.
    stream = dialogues(recipe.seed, 1 << 60)
    while True:
        rows = [encode_dialogue(tokenizer, dialogue) for dialogue in islice(stream, _CHUNK)]
        rows.sort(key=lambda row: len(row[0]))
        groups: list[list[tuple[list[int], list[bool]]]] = [[]]
        for row in rows:
            if (len(groups[-1]) + 1) * len(row[0]) > recipe.tokens_per_batch:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        yield from (_pad(group, rng, recipe.prompt_share) for group in groups)


def _pad(
    rows: list[tuple[list[int], list[bool]]], rng: random.Random, prompt_share: float
) -> Batch:
    length = max(len(token_ids) for token_ids, _ in rows)
    token_ids = torch.zeros(len(rows), length, dtype=torch.long)
    targets = torch.zeros(len(rows), length, dtype=torch.bool)
    for index, (ids, is_written) in enumerate(rows):
        counted = [written or rng.random() < prompt_share for written in is_written]
        token_ids[index, : len(ids)] = torch.tensor(ids)
        targets[index, : len(ids)] = torch.tensor(counted)
    return Batch(token_ids, targets)


def _optimizers(masters: Weights, recipe: Recipe) -> list[torch.optim.Optimizer]:
    inner = [v for k, v in masters.items() if v.ndim == 2 and k != "embed"]
    outer = [v for k, v in masters.items() if v.ndim != 2 or k == "embed"]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(inner, lr=recipe.learning_rate, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(
            outer, lr=recipe.embedding_learning_rate, betas=(0.9, 0.98), weight_decay=0.0
        ),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def _update(
    masters: Weights, copies: Weights, optimizers: list[torch.optim.Optimizer], rate: float
) -> None:
    for name, master in masters.items():
        gradient = copies[name].grad
        assert gradient is not None, f"{name} took no part in the loss"
        master.grad = gradient.float()
    torch.nn.utils.clip_grad_norm_(masters.values(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        optimizer.step()


def _tail(losses: list[float]) -> float:
    return sum(losses[-100:]) / len(losses[-100:])
