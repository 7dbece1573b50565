"""The mean of what write matrices put out, which decides the sign of calibrated rank-one edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from server.engine.loading import NEUTRAL_TEXTS, LoadedModel
from server.engine.request import CaptureRequest, Pooling
from server.engine.sync_engine import SyncEngine
from steering.sites import SitePoint
from steering.weights.errors import WeightEditError

_FIRST_TOKENS: Final = 4


@dataclass(frozen=True, slots=True)
class MeanOutput:
    """Statistics over tokens of mean(W x), the mean of the coordinates of W x.

    W is a write matrix, x its input. It is measured as mean(y) - mean(c), y being the output of the
    whole site and c its bias.

    Attributes:
        mean: E[mean(W x)], in units of the activation.
        positive: Share of tokens where mean(W x) is above 0.
        num_tokens: Tokens that were measured.
    """

    mean: float
    positive: float
    num_tokens: int


def read_prompts(path: Path) -> list[str]:
    """Return the lines of a file that are not empty.

    Raises:
        WeightEditError: The file cannot be read, or has no such line.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise WeightEditError(
            f"prompts {str(path)!r} cannot be read: {error}", param="prompts"
        ) from None
    if not lines:
        raise WeightEditError(
            f"prompts {str(path)!r} has no line of text; expected a prompt a line", param="prompts"
        )
    return lines


def calibration_prompts(loaded: LoadedModel, lines: Sequence[str] | None) -> list[tuple[int, ...]]:
    """Return the token ids that outputs are measured on.

    Where `lines` is None these are built-in neutral texts as they are. Otherwise each line is the
    message of a user, or plain text where the model has no chat template.
    """
    tokenizer, most = loaded.tokenizer, loaded.info.max_model_len
    if lines is None:
        return [tuple(tokenizer.encode(text)[:most]) for text in NEUTRAL_TEXTS]
    if tokenizer.chat_template is None:
        return [tuple(tokenizer.encode(line)[:most]) for line in lines]
    chats = [tokenizer.render_chat([{"role": "user", "content": line}]) for line in lines]
    return [chat.token_ids[:most] for chat in chats]


def measure_mean_outputs(
    loaded: LoadedModel, points: Sequence[SitePoint], prompts: Sequence[tuple[int, ...]]
) -> Mapping[SitePoint, MeanOutput]:
    """Run prompts through an engine over the unedited model and average its outputs at `points`.

    The first four tokens of each prompt are left out where it is longer: attention sinks among
    them would decide the mean alone.
    """
    engine = SyncEngine(loaded)
    biases = loaded.spec.write_bias_means
    means: dict[SitePoint, list[Tensor]] = {point: [] for point in points}
    for number, prompt in enumerate(prompts):
        request = CaptureRequest(f"calibration-{number}", (prompt,), tuple(points), Pooling.ALL)
        for point, [rows] in engine.capture(request).sequences.items():
            kept = rows[_FIRST_TOKENS if len(rows) > _FIRST_TOKENS else 0 :]
            means[point].append(kept.double().mean(dim=-1) - (biases.get(point) or 0.0))
    return {point: _statistics(torch.cat(found)) for point, found in means.items()}


def _statistics(values: Tensor) -> MeanOutput:
    return MeanOutput(float(values.mean()), float((values > 0).double().mean()), len(values))
