"""The errors of a request in the engine.

EngineError
|-- ModelLoadError                the checkpoint or its placement cannot be used
|-- RequestRejectedError          refused at admission; nothing ran
|   |-- PromptTooLongError        prompt (plus max_tokens) exceeds the model's context
|   |-- InvalidSamplingError      a sampling parameter out of range
|   |-- QueueFullError            too many requests or tokens wait already
|   |-- SteeringCapacityError     more distinct live edits than the tables can ever hold
|   `-- EngineDrainingError       shutting down; takes no new requests
|-- GenerationError               this request alone failed while running
|   |-- NonFiniteOutputError      NaN or infinity in this request's logits
|   |-- SlowClientError           the reader did not keep up with its stream
|   `-- RequestAbortedError       cancelled before it finished
`-- EngineDeadError               a fault of no single request; the engine rebuilds or stops
"""

from __future__ import annotations

from steering.errors import CoxswainError


class EngineError(CoxswainError):
    """A request cannot be served."""

    code = "server_error"


class ModelLoadError(EngineError):
    """The checkpoint or its placement cannot be used; `param` is the setting at fault."""

    code = "model_load_failed"


class RequestRejectedError(EngineError):
    """Refused at admission; nothing ran."""

    code = "request_rejected"


class PromptTooLongError(RequestRejectedError):
    """The prompt, or prompt plus max_tokens, exceeds the model's context."""

    code = "context_length_exceeded"


class InvalidSamplingError(RequestRejectedError):
    """A sampling parameter is out of range."""

    code = "invalid_sampling"


class QueueFullError(RequestRejectedError):
    """Too many requests, or too many prompt tokens, wait already."""

    code = "rate_limit_exceeded"


class SteeringCapacityError(RequestRejectedError):
    """The request alone needs more live edits than the tables can hold."""

    code = "steering_capacity_exceeded"


class EngineDrainingError(RequestRejectedError):
    """The engine is shutting down and takes no new requests."""

    code = "server_shutdown"


class GenerationError(EngineError):
    """This request alone failed while it ran."""

    code = "engine_request_failed"


class NonFiniteOutputError(GenerationError):
    """This request's logits held NaN or infinity.

    Attributes:
        is_steered: Whether the request was steered, and so the likely cause its steering.
    """

    code = "engine_nonfinite"

    def __init__(self, message: str, *, is_steered: bool) -> None:
        super().__init__(message, param="steering" if is_steered else None)
        self.is_steered = is_steered


class SlowClientError(GenerationError):
    """The reader did not keep up with its stream."""

    code = "slow_client"


class RequestAbortedError(GenerationError):
    """Cancelled before it finished."""

    code = "request_aborted"


class EngineDeadError(EngineError):
    """A fault that belongs to no single request ended the step; it may be sent again."""

    code = "engine_dead"
