"""Names of the registry: which are allowed, who holds them, their revision; texts beside them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field, ValidationInfo
from sqlalchemy import select
from sqlalchemy.orm import Session

from server.auth.permissions import Permission
from steering.documents import NAME_PATTERN, Text, refused
from steering.errors import InvalidFieldError
from steering.requirements import WEAKEN, permission_of

from .errors import NameReservedError, NameTakenError, PreconditionFailedError
from .tables import NameRow

RESERVED_NAMES: Final = frozenset({"base", "default", "none"})
"""Names with a meaning of their own where a profile is chosen."""


class NameKind(StrEnum):
    """The kinds of things that a name can stand for."""

    DIRECTION = "direction"
    PROFILE = "profile"
    ALIAS = "alias"

    @property
    def space(self) -> str:
        """The namespace of such names: profiles and aliases share one."""
        return "direction" if self is NameKind.DIRECTION else "profile"


def check_name(name: str, *, param: str = "name") -> None:
    """Check that `name` may be given to something.

    Raises:
        InvalidFieldError: It does not match `[a-z0-9][a-z0-9._-]{0,63}`.
        NameReservedError: The server keeps it for itself.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidFieldError(f"{param} {_malformed(name)}", param=param)
    if name in RESERVED_NAMES:
        raise NameReservedError(
            f"{param} is {name!r}, which is reserved; choose a name other than "
            f"{', '.join(sorted(RESERVED_NAMES))}",
            param=param,
        )


def _malformed(name: str) -> str:
    return (
        f"is {name[:80]!r}; expected 1 to 64 characters of a-z, 0-9, '.', '_' and '-', the first a "
        "letter or digit"
    )


def _registry_name(name: str, info: ValidationInfo) -> str:
    if not NAME_PATTERN.fullmatch(name):
        raise refused(_malformed(name))
    check_name(name, param=info.field_name or "name")
    return name


RegistryName = Annotated[
    Text,
    AfterValidator(_registry_name),
    Field(json_schema_extra={"pattern": f"^{NAME_PATTERN.pattern}$"}),
]
"""A member that names something to be stored; raises as `check_name`."""


def check_text(value: str, *, param: str, max_length: int) -> None:
    """Check free text for people: short enough, and without control characters.

    Raises:
        InvalidFieldError: It is not.
    """
    if len(value) > max_length:
        raise InvalidFieldError(
            f"{param} has {len(value)} characters; expected at most {max_length}", param=param
        )
    bad = next((c for c in value if not c.isprintable() and c not in "\n\t"), None)
    if bad is not None:
        raise InvalidFieldError(
            f"{param} contains the character U+{ord(bad):04X}; remove control characters",
            param=param,
        )


def claim(session: Session, kind: NameKind, name: str, expected: str | None = None) -> NameRow:
    """Lock `name` for `kind` until the transaction ends; a new name begins at revision 0.

    Args:
        session: The session of a write transaction.
        kind: What is to have the name.
        name: Checked already.
        expected: The etag the caller has seen, `"*"` for any, None for no condition.

    Raises:
        NameTakenError: The other kind of the namespace has it.
        PreconditionFailedError: `expected` is given and is not the present etag.
    """
    query = select(NameRow).where(NameRow.space == kind.space, NameRow.name == name)
    row = session.scalars(query.with_for_update()).one_or_none()
    _check_revision(name, None if row is None or row.noun is None else row.revision, expected)
    if row is None:
        row = NameRow(space=kind.space, name=name, noun=kind.value, revision=0)
        session.add(row)
        session.flush()
    if row.noun is None:
        row.noun = kind.value
    if row.noun != kind.value:
        raise NameTakenError(
            f"name is {name!r}, which is {_article(row.noun)} already; profiles and aliases "
            "share one namespace, so choose another name",
            param="name",
        )
    return row


def _check_revision(name: str, present: int | None, expected: str | None) -> None:
    if expected is None:
        return
    if present is None:
        raise PreconditionFailedError(
            f"{name!r} does not exist, but etag {expected!r} was expected; read it again"
        )
    if expected not in ("*", str(present)):
        raise PreconditionFailedError(
            f"etag of {name!r} is '{present}', expected {expected!r}: it was changed since it "
            "was read; read it again and repeat the change"
        )


def _article(kind: str) -> str:
    return f"an {kind}" if kind == "alias" else f"a {kind}"


def check_requires(requires: Sequence[str], *, of_direction: bool = False) -> None:
    """Check that every entry is a permission; of a direction, `weaken:<permission>` too.

    Raises:
        InvalidFieldError: One is not; names it.
    """
    also = f", also after {WEAKEN!r}" if of_direction else ""
    for index, entry in enumerate(requires):
        if (permission_of(entry) if of_direction else entry) not in list(Permission):
            raise InvalidFieldError(
                f"requires[{index}] is {str(entry)[:80]!r}; expected one of "
                f"{', '.join(Permission)}{also}",
                param=f"requires[{index}]",
            )
