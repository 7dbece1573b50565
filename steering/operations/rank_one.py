"""Rank-one safety injection, as an operation on the output of a write matrix."""

from __future__ import annotations

import torch

from steering.errors import SiteUnavailableError
from steering.sites import Site

from .context import OperationContext, identity_response
from .edit import Edit
from .projection import unit_rows

__all__ = ["rank_one"]


def rank_one(context: OperationContext) -> Edit:
    """y' = y + g (mean(y) - mean(c)) s: the weight edit W' = W + g s w^T of ROSI, served per token.

    s is the unit direction, w the mean of the rows of W (not normalised), c the bias of W, and
    y = W x + c. Exact for y at `attn_out`, `mlp_out` and `embed`, because w^T x = mean(W x). The
    push has the sign of mean(y) of that token, which nothing in the construction fixes.

    Raises:
        SiteUnavailableError: At any other site.

    Source: ROSI, arXiv:2508.20766, equation 6.
    """
    if context.point.site not in (Site.ATTN_OUT, Site.MLP_OUT, Site.EMBED):
        raise SiteUnavailableError(
            f"site is {context.point.site.value!r} for 'rank_one', which edits what a write matrix "
            "puts out; expected 'attn_out', 'mlp_out' or 'embed'",
            param="site",
        )
    return Edit(
        read=torch.full((1, context.width), 1.0 / context.width),
        offset=torch.tensor([context.write_bias_mean]),
        response=identity_response(1),
        write=unit_rows(context),
        restore_norm=bool(context.intervention.restore_norm),
    )
