"""At load: does a sequence come out the same alone, and in parts beside another one?

Attention is told apart by sequence; whatever else of a model lets one token see another (a shift, a
convolution, a state, rows counted where positions are meant) would mix the requests of a batch.
What is known to do so is refused by name. This finds the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from server.engine.attention import PagedAttention, ScheduledSequence
from steering.errors import UnsupportedArchitectureError

_LENGTH: Final = 12
_CUT: Final = 5
_OTHERS: Final = (7, 3)  # tokens of another request, before each part
# Half precision rounds differently in other shapes, and an expert may be chosen otherwise for it.
_ALLOWED: Final = 1e-3
_ALLOWED_HALF: Final = 0.2


class _Part(NamedTuple):
    """Tokens [n] of one sequence that run in a step, from position `start` on."""

    token_ids: Tensor
    blocks: range
    start: int


def check_packing(model: Any, attention: PagedAttention, device: torch.device) -> None:
    """Compare the logits of 12 tokens alone with those in two parts, each behind another request.

    Three short forwards; overwrites the first blocks of the cache. Does nothing where the cache
    has too few blocks for two sequences.

    Raises:
        UnsupportedArchitectureError: They differ by more than rounding.
    """
    num_blocks = -(-_LENGTH // attention.block_size)
    if 2 * num_blocks > attention.num_blocks:
        return
    vocab_size = model.get_input_embeddings().weight.shape[0]
    ids = torch.linspace(vocab_size // 8, vocab_size - vocab_size // 8 - 1, _LENGTH).long()
    own, theirs = range(num_blocks), range(num_blocks, 2 * num_blocks)
    first, second = (_Part(ids.flip(0)[:count], theirs, 0) for count in _OTHERS)
    alone = _run(model, attention, device, [_Part(ids, own, 0)])
    packed = torch.cat(
        [
            _run(model, attention, device, [first, _Part(ids[:_CUT], own, 0)]),
            _run(model, attention, device, [second, _Part(ids[_CUT:], own, _CUT)]),
        ]
    )
    finite = alone.isfinite()  # some logits may be -inf by design
    error = float((packed - alone)[finite].norm() / alone[finite].norm())
    is_single = torch.finfo(attention.specs[0].dtype).bits >= 32
    allowed = _ALLOWED if is_single else _ALLOWED_HALF
    if not error <= allowed:  # so that NaN fails
        raise UnsupportedArchitectureError(
            f"{type(model).__name__} gives other logits for a sequence in two parts beside another "
            f"request than for it alone: {error:.2g} of their length away, allowed {allowed:g}. "
            "Something in it sees more than the tokens and positions of one sequence, so that "
            "requests would change each other",
            param="model",
        )


@torch.inference_mode()
def _run(
    model: Any, attention: PagedAttention, device: torch.device, parts: Sequence[_Part]
) -> Tensor:
    """Logits [n, V] of the tokens of the last part, in float32 on the CPU."""
    lengths = [len(part.token_ids) for part in parts]
    attention.begin_step(
        [
            ScheduledSequence(part.blocks, part.start, length)
            for part, length in zip(parts, lengths, strict=True)
        ]
    )
    positions = [
        torch.arange(part.start, part.start + length)
        for part, length in zip(parts, lengths, strict=True)
    ]
    output = model(
        input_ids=torch.cat([part.token_ids for part in parts])[None].to(device),
        position_ids=torch.cat(positions)[None].to(device),
        use_cache=False,
        logits_to_keep=torch.arange(sum(lengths) - lengths[-1], sum(lengths), device=device),
    )
    logits: Tensor = output.logits[0].float().cpu()
    return logits
