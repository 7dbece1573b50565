"""Sizes of weights and updates; weights that cannot be injected into."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from steering.operations import Edit
from steering.operations.edit import identity_response
from steering.sites import Site, SitePoint
from steering.weights import (
    CentredWeightsError,
    CheckpointFiles,
    GainedEdit,
    WriteTensor,
    refuse_centred,
    rosi,
    survey,
)

POINT = SitePoint(3, Site.ATTN_OUT)
D, D_IN = 32, 48
S = torch.randn(D, generator=torch.Generator().manual_seed(1))
EDITS = {
    POINT: [
        GainedEdit(
            Edit(
                read=torch.full((1, D), 1 / D),
                offset=torch.zeros(1),
                response=identity_response(1),
                write=(S / S.norm())[None],
            ),
            2.0,
        )
    ]
}


def _files(folder: Path, **tensors: torch.Tensor) -> CheckpointFiles:
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return CheckpointFiles(folder)


def _weight(seed: int) -> torch.Tensor:
    return torch.randn(D, D_IN, generator=torch.Generator().manual_seed(seed))


def test_experts_count_together(tmp_path: Path) -> None:
    experts = [_weight(seed) for seed in range(3)]
    files = _files(tmp_path, **{f"w{i}": weight for i, weight in enumerate(experts)})
    tensors = [WriteTensor(f"w{i}", POINT, False) for i in range(3)]
    found = survey(files, tensors, EDITS)[POINT]
    both = torch.stack(experts)
    assert found.weight == pytest.approx(float(both.norm()))
    assert found.mean_row == pytest.approx(float(both.mean(dim=1).norm()), rel=1e-5)
    assert found.update == pytest.approx(float((rosi(both, S, 2.0) - both).norm()), rel=1e-4)
    assert found.relative_update == pytest.approx(2.0 * found.mean_row / found.weight)
    assert found.width == D
    refuse_centred({POINT: found})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_centred_weights_are_refused_in_every_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = _weight(0)
    files = _files(tmp_path, w=(weight - weight.mean(dim=0)).to(dtype))
    norms = survey(files, [WriteTensor("w", POINT, False)], EDITS)
    with pytest.raises(CentredWeightsError, match="'attn_out' of layer 3") as caught:
        refuse_centred(norms)
    assert caught.value.param == "operation"
