"""What can go wrong in an evaluation, beyond what can go wrong between client and server.

EvaluationError
|-- SuiteError               the suite or a data file is wrong; nothing was asked
|-- RunFolderError           the folder holds another run, or is not one
|-- DoseError                no equal dose can be had for a control
|-- SteeringMismatchError    an answer was not steered as asked
`-- JudgeError               a judge gave no answer
"""

from __future__ import annotations

from collections.abc import Sequence

from coxswain_client.errors import SteeringClientError


class EvaluationError(SteeringClientError):
    """An evaluation cannot go on; the message says what to change."""


class SuiteError(EvaluationError):
    """A suite or a data file is wrong.

    Attributes:
        problems: Every one, each as `file:line: field is ...; expected ...`.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class RunFolderError(EvaluationError):
    """A run's folder holds another run, or is not one."""


class DoseError(EvaluationError):
    """A control at equal dose cannot be built; the message names the field to set."""


class SteeringMismatchError(EvaluationError):
    """The applied report of an answer differs from what was asked; the run stops."""


class JudgeError(EvaluationError):
    """A judge's endpoint answers with something that is not a completion."""
