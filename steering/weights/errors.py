"""What can be wrong with editing the weights of a checkpoint.

WeightEditError
|-- NotFoldableError      an intervention that no change of weights could stand for
|-- CentredWeightsError   rank-one injection into weights whose mean row is nothing
|-- TiedEmbeddingsError   editing the embedding would edit the unembedding as well
|-- CheckpointError       the files cannot be edited, or are not those of the loaded model
`-- OutputExistsError     something is already where the new checkpoint should be
"""

from __future__ import annotations

from steering.errors import CoxswainError


class WeightEditError(CoxswainError):
    """A checkpoint cannot be edited as asked.

    `param` is the option or the field of an intervention at fault.
    """

    code = "weight_edit_failed"


class NotFoldableError(WeightEditError):
    """An intervention that no change of weights could stand for."""


class CentredWeightsError(WeightEditError):
    """Rank-one injection into weights whose mean row is nothing would change nothing."""


class TiedEmbeddingsError(WeightEditError):
    """Editing the embedding would edit the unembedding as well."""


class CheckpointError(WeightEditError):
    """The files cannot be edited, or are not those of the loaded model."""


class OutputExistsError(WeightEditError):
    """Something is already where the new checkpoint should be."""
