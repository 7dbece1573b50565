"""The base of every document, and how pydantic's refusals become Coxswain's."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar, Union

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from steering.errors import InvalidFieldError, NonFiniteError, SteeringError, short_repr

_T = TypeVar("_T")
_OBJECT_TYPES: Final = {"model_type", "model_attributes_type", "dict_type"}
# What a value of another type should have been: alone, and as an item of a list.
_EXPECTED: Final = {
    "bool_type": ("true or false", "booleans"),
    "int_type": ("an integer", "integers"),
    "string_type": ("a text", "strings"),
}


class Document(BaseModel):
    """A JSON object that callers write, as a frozen value.

    A member that is null counts as absent, and unknown members are refused. Reading raises a
    `SteeringError` whose `param` is the path of the first problem and whose message says what was
    found and what was expected. The constructor raises pydantic's `ValidationError` around it.

    Class attributes:
        noun: What a refusal calls the document.
        subject: What a refusal calls it where a member is missing; `noun` unless given.
        prefix: Stands before the names of members in messages, for a document within another.
        form: What a refusal expects in place of a value that is no object.
        null_is_absent: Whether members that are null are dropped before reading.
        names_place: Whether messages name a member by its whole path, for documents in lists.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        json_schema_mode_override="validation",  # one schema: what is written is what is read
    )

    noun: ClassVar[str] = "a document"
    subject: ClassVar[str] = ""
    prefix: ClassVar[str] = ""
    form: ClassVar[str] = "an object"
    null_is_absent: ClassVar[bool] = True
    names_place: ClassVar[bool] = False

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read a JSON object.

        Raises:
            SteeringError: The first problem, with `param` naming the member.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise refusal(error, cls) from None

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that `from_dict` reads, without members that are not given."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @classmethod
    def known(cls) -> frozenset[str]:
        """Names of all members the document may have, as they are written."""
        return frozenset(field.alias or name for name, field in cls.model_fields.items())

    @classmethod
    def unknown(cls, key: object) -> SteeringError:
        """The refusal of a member that no such document has."""
        return unknown_field(key, cls.known(), cls.noun, cls.prefix)

    @classmethod
    def owner(cls, name: str) -> str:  # noqa: ARG003, variants look at it
        """What a refusal says has no such member, where it must."""
        return cls.subject or cls.noun

    @classmethod
    def misplaced(cls, name: str) -> SteeringError:
        """The refusal of a member that is known but is not one of this variant's."""
        raise NotImplementedError

    @classmethod
    def prepare(cls, document: dict[str, Any]) -> dict[str, Any]:
        """Complete the members given, without nulls, before they are read."""
        return document

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(value, Mapping):
            absent = cls.known() if cls.null_is_absent else ()
            value = cls.prepare(without_nulls(value, absent))
        elif not isinstance(value, cls):
            raise refused(f"is {short_repr(value)}; expected {cls.form}", at_item=True)
        try:
            return handler(value)
        except ValidationError as error:
            raise (_fault if cls.names_place else refusal)(error, cls) from None


def tagged(tag: str) -> ConfigDict:
    """Configuration of variants whose JSON schema requires the member that tells them apart."""

    def require(schema: dict[str, Any]) -> None:
        schema["required"] = list(dict.fromkeys([tag, *schema.get("required", [])]))

    return ConfigDict(json_schema_extra=require)


@dataclass(frozen=True, slots=True)
class Variants:
    """Makes a base class of documents stand for the union of its subclasses, in an `Annotated`.

    Attributes:
        tag: Member that tells them apart.
        kinds: Its values, one for each subclass.
        default: Its value where it is absent; None where it is required. Then the subclasses are
            one family: members that none of them has are refused before anything else.
    """

    tag: str
    kinds: type[StrEnum]
    default: StrEnum | None = None

    def __get_pydantic_core_schema__(
        self, source: type[Document], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """The schema of the union, discriminated by the tag."""
        union: Any = Union[tuple(source.__subclasses__())]  # noqa: UP007, members known at run time
        variants = handler.generate_schema(Annotated[union, Field(discriminator=self.tag)])

        def choose(value: Any, variant: core_schema.ValidatorFunctionWrapHandler) -> Any:
            if isinstance(value, Mapping):
                value = self._tagged(value, source)
            try:
                return variant(value)
            except ValidationError as error:
                raise _cause(error) or error from None

        return core_schema.no_info_wrap_validator_function(choose, variants)

    def _tagged(self, document: Mapping[str, Any], family: type[Document]) -> Mapping[str, Any]:
        """The document with a tag that is one of the kinds."""
        if self.default is None:
            unknown = next((key for key in document if key not in family.known()), None)
            if unknown is not None:
                raise family.unknown(unknown)
            if document.get(self.tag) is None:
                message = f"{family.owner(self.tag)} has no {self.tag}; it is required"
                raise InvalidFieldError(message, param=self.tag)
        given = document.get(self.tag, self.default)
        if given not in list(self.kinds):
            raise InvalidFieldError(
                f"{self.tag} is {short_repr(given)}; expected one of {', '.join(self.kinds)}",
                param=self.tag,
            )
        return {**document, self.tag: given}


@cache
def members_of_variants(family: type[Document]) -> frozenset[str]:
    """Names of all members that any variant of a family has."""
    return frozenset(name for variant in family.__subclasses__() for name in variant.model_fields)


def read(reader: TypeAdapter[_T], document: Any) -> _T:
    """What a union of documents reads.

    Raises:
        SteeringError: The first problem, with `param` naming the member.
    """
    try:
        return reader.validate_python(document)
    except ValidationError as error:
        cause = _cause(error)
        if cause is None:
            message = f"document is {short_repr(document)}; expected an object"
            raise InvalidFieldError(message) from None
        raise cause from None


def read_at(reader: TypeAdapter[_T], value: Any, param: str) -> _T:
    """What an item of a document reads that stands at `param` of the request.

    Raises:
        SteeringError: The first problem; message and `param` name its whole place.
    """
    try:
        return reader.validate_python(value)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        items = "".join(f"[{part}]" for part in found["loc"] if isinstance(part, int))
        context = found.get("ctx", {})
        cause = context.get("error")
        if isinstance(cause, UnplacedError):
            raise cause.within(param + items).placed("") from None
        error_class, predicate = _predicate(found, is_item=bool(items))
        place = param + items if context.get("at_item") else param
        raise error_class(f"{place} {predicate}", param=place) from None


def _cause(error: ValidationError) -> SteeringError | None:
    """The refusal that a reader within has raised; None where the value is no object."""
    cause = error.errors(include_url=False)[0].get("ctx", {}).get("error")
    return cause if isinstance(cause, SteeringError) else None


def without_nulls(document: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """A copy of the document without those of the `known` members that are null."""
    return {k: v for k, v in document.items() if v is not None or k not in known}


def refused(
    predicate: str, code: str = InvalidFieldError.code, *, at_item: bool = False
) -> PydanticCustomError:
    """The refusal that a validator raises: its message is the member's name and `predicate`.

    `code` is that of the `SteeringError` it becomes. The member is a whole list, also where one of
    its items is at fault, unless `at_item`.
    """
    return PydanticCustomError(code, "{predicate}", {"predicate": predicate, "at_item": at_item})


class UnplacedError(ValueError):
    """A refusal within a list, whose message names the member by its whole path.

    Attributes:
        error: The class of the refusal.
        before: What its message says before the name.
        name: The path, as far as it is known.
        after: What its message says after the name.
    """

    def __init__(self, error: type[SteeringError], before: str, name: str, after: str) -> None:
        super().__init__(before + name + after)
        self.error, self.before, self.name, self.after = error, before, name, after

    def within(self, path: str) -> UnplacedError:
        """The refusal with the path put below another."""
        joint = "" if self.name.startswith("[") or not path or not self.name else "."
        return UnplacedError(self.error, self.before, f"{path}{joint}{self.name}", self.after)

    def placed(self, prefix: str) -> SteeringError:
        """The refusal, named from the document on."""
        return self.error(f"{self.before}{prefix}{self.name}{self.after}", param=self.name)


def unknown_field(key: object, known: Collection[str], noun: str, prefix: str) -> SteeringError:
    """The refusal of a member that no such document has."""
    name, members = _printable(key), ", ".join(sorted(known))
    return InvalidFieldError(
        f"unknown field {prefix}{name} of {noun}; expected {members}", param=name
    )


def _printable(key: object) -> str:
    name = f"{key!s:.60}"
    return name if name.isprintable() else short_repr(name)


def refusal(error: ValidationError, model: type[Document]) -> SteeringError:
    """The first problem of a document as Coxswain words it; members nobody knows come first."""
    fault = _fault(error, model)
    return fault if isinstance(fault, SteeringError) else fault.placed(model.prefix)


def _fault(error: ValidationError, model: type[Document]) -> SteeringError | UnplacedError:
    known = model.known()

    def rank(found: ErrorDetails) -> int:
        if found["type"] != "extra_forbidden":
            return 1
        return 2 if found["loc"][0] in known else 0

    found = min(error.errors(include_url=False), key=rank)
    kind, value, cause = found["type"], found["input"], found.get("ctx", {}).get("error")
    path = _path(found["loc"])
    if isinstance(cause, SteeringError):
        return cause.under(path) if path else cause
    if isinstance(cause, UnplacedError):
        return cause.within(path)
    if kind == "extra_forbidden":
        key = found["loc"][0]
        if key in known:
            return model.misplaced(str(key))
        if model.names_place:
            after = f" of {model.noun}; expected {', '.join(sorted(known))}"
            return UnplacedError(InvalidFieldError, "unknown field ", _printable(key), after)
        return model.unknown(key)
    if kind == "missing":
        return InvalidFieldError(f"{model.owner(path)} has no {path}; it is required", param=path)
    if kind in _OBJECT_TYPES:
        after = f" is {short_repr(value)}; expected an object"
        return UnplacedError(InvalidFieldError, "", path or "document", after)
    field, is_item = path.partition("[")[0], "[" in path
    error_class, predicate = _predicate(found, is_item=is_item)
    at_item = found.get("ctx", {}).get("at_item", False)
    return UnplacedError(error_class, "", path if at_item else field, f" {predicate}")


def _path(loc: tuple[int | str, ...]) -> str:
    """`interventions[0]`: a member and places in its lists; tags of unions are not in it."""
    items = "".join(f"[{part}]" for part in loc[1:] if isinstance(part, int))
    return f"{loc[0]}{items}" if loc else ""


def _predicate(found: ErrorDetails, *, is_item: bool) -> tuple[type[SteeringError], str]:
    """The class of a refusal, and what its message says after the member's name."""
    kind, value = found["type"], found["input"]
    own = _classes().get(kind)
    if own is not None:
        return own, str(found["ctx"]["predicate"])
    if kind == "finite_number" or (kind == "float_type" and type(value) is int):  # 10**400
        return NonFiniteError, "is not finite; expected a finite number"
    verb = "contains" if is_item else "is"
    if kind in ("enum", "literal_error"):
        if is_item and not isinstance(value, str):
            return InvalidFieldError, f"contains {short_repr(value)}; expected strings"
        members = ", ".join(re.findall(r"'([^']*)'", found["ctx"]["expected"]))
        return InvalidFieldError, f"{verb} {short_repr(value)}; expected one of {members}"
    if kind == "float_type":
        return InvalidFieldError, f"is {short_repr(value)}; expected a number"
    if kind in _EXPECTED:
        expected = _EXPECTED[kind][is_item]
        return InvalidFieldError, f"{verb} {short_repr(value)}; expected {expected}"
    raise AssertionError(f"a refusal that has no wording: {found}")


def _classes() -> dict[str, type[SteeringError]]:
    """Every class of refusal by its code."""
    classes: list[type[SteeringError]] = [SteeringError, *SteeringError.__subclasses__()]
    return {error.code: error for error in classes}
