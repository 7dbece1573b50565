"""Quantised checkpoints: turned into floating point while they are read, or refused by name.

Steering acts on activations and would not mind packed weights. But one kind of weights is one way
for all that reads them: packing for the CPU, attribution of heads, the self-check's tolerance. So
what transformers can dequantise by itself is dequantised, and takes the memory of the original.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from server.engine.errors import ModelLoadError
from steering.weights import CheckpointFiles
from steering.weights.checkpoint_files import quantisation_of

_DEQUANTISED: Final = {
    "fp8": ("_scale_inv", "activation_scale"),
    "mxfp4": ("_blocks", "_scales"),
}
"""Methods that transformers dequantises, with the endings of the tensors that go into a weight."""

_NARROW: Final = ("F8_E4M3", "F8_E5M2", "F8_E8M0")
"""Dtypes in files that stand for numbers only together with a scale."""


def dequantise(config: Any) -> None:
    """Have transformers dequantise the weights of a checkpoint, where it can.

    Args:
        config: The model's configuration, which is changed to say so; one of weights that are not
            quantised is left alone.

    Raises:
        ModelLoadError: It is quantised in another way.
    """
    method = quantisation_of(config.to_dict())
    if method is None:
        return
    settings = getattr(config, "quantization_config", None)
    if method not in _DEQUANTISED or not isinstance(settings, dict):
        raise ModelLoadError(
            f"the checkpoint is quantised ({method}); of quantised ones those of "
            f"{' and '.join(_DEQUANTISED)} are read, and GGUF files. Give the original, or a GGUF "
            "file of it",
            param="model",
        )
    settings["dequantize"] = True


def parts_left_out(files: CheckpointFiles, unused: set[str], left_out: set[str]) -> Iterator[str]:
    """Tensors that go into weights which are left out themselves, such as their scales."""
    for ending in _DEQUANTISED.get(files.quantisation or "", ()):
        for name in unused - left_out:
            if name.endswith(ending) and name.removesuffix(ending) in left_out:
                yield name


def is_dequantised(files: CheckpointFiles, name: str) -> bool:
    """Whether a tensor of a file is narrower than any floating point weight, and scaled."""
    return files.quantisation in _DEQUANTISED and files.shard_of(name).dtype(name) in _NARROW
