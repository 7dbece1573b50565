"""The base of every error of this project, and what can be wrong with steering.

CoxswainError
`-- SteeringError
    |-- InvalidFieldError           a field's value is not one of those allowed
    |-- ShapeMismatchError          a tensor has another shape than its site or kind asks for
    |-- UnsupportedDtypeError       a tensor's dtype is not F32, F16 or BF16
    |-- NonFiniteError              NaN or infinity in a tensor or a number
    |-- ZeroVectorError             a direction with (almost) no length
    |-- NormTooLargeError           a direction whose length would overflow the model's dtype
    |-- UnknownSiteError            no site has that name
    |-- SiteUnavailableError        the loaded model has no such site; says why
    |-- LayerOutOfRangeError        a layer the model does not have, or an empty selection
    |-- NotStoredThereError         a per-layer direction used where it was not stored
    |-- IncompatibleModelError      made for another model (fingerprint)
    |-- IncompatibleOperationError  this operation cannot use this kind of direction
    |-- NoEffectError               steering that would change nothing that is returned
    |-- FormatError                 a file that cannot be read as what it claims to be
    |   `-- UnsafeFormatError       a file that would need unpickling or code to read
    |-- UnsupportedArchitectureError  the model's structure cannot be mapped
    |-- SelfCheckError              the architecture map does not hold on the loaded model
    `-- FitError                    a direction cannot be fitted from this data

Request bodies, keys, the engine, the store, the registry and the weights have trees of their own on
the same base, each drawn in the module that has it.
"""

from __future__ import annotations

import reprlib
from typing import Any, ClassVar, Final, Self

_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def short_repr(value: Any) -> str:
    """`repr` of a value, cut to what an error message can show of whatever a caller sent."""
    return _SHORT.repr(value)


class CoxswainError(Exception):
    """A fault that a caller can tell apart from others, and name to its user.

    Attributes:
        code: Stable machine-readable name of the fault; goes on the wire as `error.code`.
        param: Path of the field at fault, for example `interventions[0].layers`, or None.
    """

    code: ClassVar[str] = "server_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param

    def under(self, prefix: str) -> Self:
        """Put the field's path below `prefix` and return this error, for re-raising."""
        if self.param is None:
            self.param = prefix
        else:
            joint = "" if self.param.startswith("[") else "."
            self.param = f"{prefix}{joint}{self.param}"
        return self

    def at(self, param: str) -> Self:
        """Name the caller's own field `param` instead, and return this error, for re-raising."""
        self.param = param
        return self


class SteeringError(CoxswainError, ValueError):
    """Steering that cannot be done as asked."""

    code = "invalid_steering"


class InvalidFieldError(SteeringError):
    """A field's value is not one of those allowed."""

    code = "invalid_field"


class ShapeMismatchError(SteeringError):
    """A tensor has another shape than its site or kind asks for."""

    code = "shape_mismatch"


class UnsupportedDtypeError(SteeringError):
    """A tensor's dtype is not one of F32, F16 and BF16."""

    code = "unsupported_dtype"


class NonFiniteError(SteeringError):
    """A tensor or a number holds NaN or infinity."""

    code = "non_finite"


class ZeroVectorError(SteeringError):
    """A direction has (almost) no length."""

    code = "zero_vector"


class NormTooLargeError(SteeringError):
    """A direction is so long that the model's dtype would overflow."""

    code = "norm_too_large"


class UnknownSiteError(SteeringError):
    """No site has that name."""

    code = "unknown_site"


class SiteUnavailableError(SteeringError):
    """The loaded model has no such site, or the site is read only."""

    code = "site_unavailable"


class LayerOutOfRangeError(SteeringError):
    """A layer the model does not have, or a selection that is empty."""

    code = "layer_out_of_range"


class NotStoredThereError(SteeringError):
    """A direction bound to its layers or site is used elsewhere."""

    code = "not_stored_there"


class IncompatibleModelError(SteeringError):
    """A direction or profile was made for a model with another fingerprint."""

    code = "fingerprint_mismatch"


class IncompatibleOperationError(SteeringError):
    """This operation cannot use this kind of direction."""

    code = "incompatible_operation"


class NoEffectError(SteeringError):
    """Steering was asked for that would change nothing that is returned."""

    code = "steering_no_effect"


class FormatError(SteeringError):
    """A file cannot be read as what it claims to be."""

    code = "invalid_format"


class UnsafeFormatError(FormatError):
    """A file could only be read by unpickling or running code."""

    code = "unsafe_format"


class UnsupportedArchitectureError(SteeringError):
    """The model's structure cannot be mapped to sites; names what is missing."""

    code = "unsupported_architecture"


class SelfCheckError(SteeringError):
    """The architecture map does not hold on the loaded model."""

    code = "self_check_failed"


class FitError(SteeringError):
    """A direction cannot be fitted from this data."""

    code = "fit_failed"
