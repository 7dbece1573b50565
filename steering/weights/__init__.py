"""Edits of outputs written into the weights that give them, in checkpoints that stand alone."""

from __future__ import annotations

from .checkpoint_files import CheckpointFiles
from .errors import (
    CentredWeightsError,
    CheckpointError,
    NotFoldableError,
    OutputExistsError,
    TiedEmbeddingsError,
    WeightEditError,
)
from .fold import GainedEdit, check_foldable, edits_by_point, fold_bias, fold_weight
from .matrix_edits import amplify, mean_row, orthogonalize, rosi, rosi_calibrated
from .output_folder import check_output, output_folder
from .weight_edits import (
    Survival,
    UntiedEmbedding,
    WeightEdits,
    WeightNorms,
    refuse_centred,
    survey,
)
from .write_checkpoint import copy_metadata, write_weights
from .write_tensor import WriteTensor, locate_write_tensors

__all__ = [
    "CentredWeightsError",
    "CheckpointError",
    "CheckpointFiles",
    "GainedEdit",
    "NotFoldableError",
    "OutputExistsError",
    "Survival",
    "TiedEmbeddingsError",
    "UntiedEmbedding",
    "WeightEditError",
    "WeightEdits",
    "WeightNorms",
    "WriteTensor",
    "amplify",
    "check_foldable",
    "check_output",
    "copy_metadata",
    "edits_by_point",
    "fold_bias",
    "fold_weight",
    "locate_write_tensors",
    "mean_row",
    "orthogonalize",
    "output_folder",
    "refuse_centred",
    "rosi",
    "rosi_calibrated",
    "survey",
    "write_weights",
]
