"""What a fit tries beside layers and positions: options of the method, and numbers of layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Final

from pydantic import ConfigDict, Field

from steering.documents import Document, unknown_field
from steering.errors import InvalidFieldError, SteeringError, short_repr
from steering.fit import Method

MAX_CANDIDATES: Final = 1024
"""Most directions one fit makes to select from."""

_NUM_LAYERS: Final = "num_layers"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to fit a candidate.

    Attributes:
        options: Of the method, all of them.
        differs: In what variants differ: of the method's options those that are scanned, and
            `num_layers` where that is.
        num_layers: Layers it takes together, from the candidate's own layer on.
    """

    options: Mapping[str, Any]
    differs: Mapping[str, Any]
    num_layers: int


@dataclass(frozen=True, slots=True)
class Scan:
    """Every variant that is tried at each layer and position, and the lists they come from."""

    variants: tuple[Variant, ...]
    lists: Mapping[str, tuple[Any, ...]]

    def document(self) -> dict[str, Any]:
        """Return the lists as JSON."""
        return {name: list(values) for name, values in self.lists.items()}


def _to_list(schema: dict[str, Any]) -> None:
    del schema["default"]  # it is left out, not null
    schema |= {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}


class ScanLists(Document):
    """Lists of values to try: of options of the method, and of `num_layers`."""

    model_config = ConfigDict(extra="allow")

    noun: ClassVar[str] = "options.scan"
    prefix: ClassVar[str] = "options.scan."

    num_layers: Any = Field(
        default=None,
        description="Numbers of neighbouring candidate layers to map together, each fitted with "
        "the earlier ones active.",
        json_schema_extra=_to_list,
    )

    def read(self, method: Method, options: Mapping[str, Any]) -> Scan:
        """Return every combination, checked.

        Args:
            method: What is fitted by.
            options: All its options as they are without the scan.

        Raises:
            InvalidFieldError: An option that the method does not have, or what is no list of
                different values that it takes.
        """
        lists = dict(self.model_extra or {})
        if self.num_layers is not None:
            lists[_NUM_LAYERS] = self.num_layers
        known = {name for name, kind in method.options.types().items() if kind != "vector"}
        for name, values in lists.items():
            if name not in known and name != _NUM_LAYERS:
                raise unknown_field(
                    name, {*known, _NUM_LAYERS}, "options.scan", "options.scan."
                ).under("options.scan")
            _check_list(name, values)
            for value in values:
                _check_value(name, value, method, options)
        return Scan(
            tuple(
                _variant(dict(zip(lists, values, strict=True)), options)
                for values in product(*lists.values())
            ),
            {name: tuple(values) for name, values in lists.items()},
        )


def _variant(differs: Mapping[str, Any], options: Mapping[str, Any]) -> Variant:
    own = {name: value for name, value in differs.items() if name != _NUM_LAYERS}
    return Variant({**options, **own}, differs, differs.get(_NUM_LAYERS, 1))


def _check_list(name: str, values: Any) -> None:
    is_list = isinstance(values, list | tuple) and 0 < len(values) <= MAX_CANDIDATES
    if is_list and len(set(map(repr, values))) == len(values):
        return
    raise InvalidFieldError(
        f"options.scan.{name} is {short_repr(values)}; expected a list of different values",
        param=f"options.scan.{name}",
    )


def _check_value(name: str, value: Any, method: Method, options: Mapping[str, Any]) -> None:
    param = f"options.scan.{name}"
    if name != _NUM_LAYERS:
        try:
            method.resolve({**options, name: value})
        except SteeringError as error:
            message = str(error).replace(f"options.{name}", param, 1)
            raise type(error)(message, param=param) from None
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidFieldError(
            f"{param} contains {short_repr(value)}; expected integers of at least 1", param=param
        )
    if value > 1 and not method.is_sequential:
        raise InvalidFieldError(
            f"{param} contains {value}, and {method.name!r} is not fitted with earlier layers "
            "active; expected 1",
            param=param,
        )
