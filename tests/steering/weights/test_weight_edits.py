"""What survives rounding, against a direct computation."""

from __future__ import annotations

import pytest
import torch

from steering.operations import Edit
from steering.operations.edit import identity_response
from steering.sites import Site, SitePoint
from steering.weights import GainedEdit, Survival, WriteTensor, rosi
from steering.weights.fold import column_blocks
from steering.weights.weight_edits import edit_stored

POINT = SitePoint(0, Site.MLP_OUT)
D, D_IN = 64, 96
W = torch.randn(D, D_IN, generator=torch.Generator().manual_seed(0)) * D**-0.5
S = torch.randn(D, generator=torch.Generator().manual_seed(1))


def rank_one(alpha: float) -> list[GainedEdit]:
    edit = Edit(
        read=torch.full((1, D), 1 / D),
        offset=torch.zeros(1),
        response=identity_response(1),
        write=(S / S.norm())[None],
    )
    return [GainedEdit(edit, alpha)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("alpha", [0.1, 3.0])
def test_it_is_what_a_direct_computation_says(dtype: torch.dtype, alpha: float) -> None:
    stored = W.to(dtype)
    edited, found = edit_stored(stored, WriteTensor("w", POINT, False), rank_one(alpha), dtype)
    exact = rosi(stored.double(), S.double(), alpha)
    assert torch.equal(edited, exact.to(dtype))
    wanted, applied = exact - stored.double(), edited.double() - stored.double()
    assert found.retained == pytest.approx(float((applied * wanted).sum() / wanted.square().sum()))
    error = float((applied - wanted).norm() / wanted.norm())
    assert found.relative_error == pytest.approx(error, rel=1e-4)


def test_small_edits_are_lost_in_bfloat16_and_kept_in_float32() -> None:
    """Shares of the order the derivation in the documentation gives for weights like these."""
    stored = W.bfloat16()
    write = WriteTensor("w", POINT, False)
    small = edit_stored(stored, write, rank_one(0.03), torch.bfloat16)[1].retained
    large = edit_stored(stored, write, rank_one(3.0), torch.bfloat16)[1].retained
    kept = edit_stored(stored, write, rank_one(0.03), torch.float32)[1].retained
    assert small is not None
    assert large is not None
    assert kept is not None
    assert small < 0.6 < 0.97 < large
    assert abs(kept - 1) < 1e-3


def test_rounding_at_loading_counts() -> None:
    """Files of float32 whose configuration says bfloat16 lose at loading what they seem to keep."""
    write, halves = WriteTensor("w", POINT, False), W.bfloat16()
    edits = rank_one(0.03)
    expected = edit_stored(halves, write, edits, torch.bfloat16)[1]
    wide, found = edit_stored(halves.float(), write, edits, torch.float32, torch.bfloat16)
    assert wide.dtype is torch.float32
    assert found.along == pytest.approx(expected.along, rel=1e-6)


def test_transposed_and_stacked_weights_are_edited_in_their_own_layout() -> None:
    plain, found = edit_stored(W, WriteTensor("w", POINT, False), rank_one(2.0), torch.float32)
    turned, other = edit_stored(
        W.T.contiguous(), WriteTensor("w", POINT, True), rank_one(2.0), torch.float32
    )
    assert torch.equal(turned.T, plain)
    assert other.wanted == pytest.approx(found.wanted)
    stack = torch.stack([W, W.flip(1)])
    stacked, both = edit_stored(stack, WriteTensor("w", POINT, False), rank_one(2.0), torch.float32)
    torch.testing.assert_close(stacked[0], plain)
    assert both.wanted == pytest.approx(2 * found.wanted)


def test_parts_add_up() -> None:
    total = Survival(1.0, 0.5, 0.25) + Survival(3.0, 2.5, 0.75)
    assert total.retained == pytest.approx(0.75)
    assert total.relative_error == pytest.approx(0.5)
    assert Survival().retained is None
    assert Survival().relative_error is None


def test_blocks_cover_every_column_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steering.weights.fold._BLOCK_ITEMS", D * 10)
    widths = [block.shape for block in column_blocks(W)]
    assert widths == [(D, 10)] * 9 + [(D, 6)]
    stored = torch.stack([W, W.flip(1)])
    edited, _ = edit_stored(stored, WriteTensor("w", POINT, False), rank_one(2.0), torch.float32)
    torch.testing.assert_close(edited, rosi(stored, S, 2.0))
