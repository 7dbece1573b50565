"""The rows of the database; written here once, created by the migrations."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

_NAME: Final = String(64)
_SHA256: Final = String(64)
ROW_ID: Final = BigInteger().with_variant(Integer, "sqlite")
"""Type of a row's number; SQLite counts by itself only where the column is exactly INTEGER."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC; SQLite itself keeps no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """The value in UTC, as it is stored; a naive one is a fault of ours."""
        assert value is None or value.tzinfo is not None, "naive datetime"
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """The stored value as an aware one; what SQLite gives is naive and in UTC."""
        if value is None or value.tzinfo is not None:
            return None if value is None else value.astimezone(UTC)
        return value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Names every constraint, so that migrations can refer to it."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
        int: Integer,
        str: Text,
        bytes: LargeBinary,
    }


class NameRow(Base):
    """A name of a space and what it stands for; locked by every writer of that name.

    A freed name keeps its row (`noun` null), so that its revision never repeats.
    """

    __tablename__ = "names"

    space: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(_NAME, primary_key=True)
    noun: Mapped[str | None] = mapped_column(String(16))
    revision: Mapped[int]


class VersionedRow(Base):
    """One immutable version of a name; only its times are ever set later."""

    __abstract__ = True

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(_NAME)
    version: Mapped[int]
    model_fingerprint: Mapped[str | None]
    requires: Mapped[list[Any]]
    created_at: Mapped[datetime]
    created_by: Mapped[str | None] = mapped_column(String(16))
    archived_at: Mapped[datetime | None]


class DirectionRow(VersionedRow):
    """One version of a direction; its tensors are in the blob `sha256`."""

    __tablename__ = "direction_versions"
    __table_args__ = (
        UniqueConstraint("name", "version"),
        Index(
            "uq_direction_versions_live_identity",
            "name",
            "identity",
            unique=True,
            sqlite_where=text("archived_at IS NULL"),
            postgresql_where=text("archived_at IS NULL"),
        ),
    )

    kind: Mapped[str] = mapped_column(String(16))
    site: Mapped[str] = mapped_column(String(16))
    layers: Mapped[list[Any]]
    width: Mapped[int]
    norms: Mapped[dict[str, Any]]
    sha256: Mapped[str] = mapped_column(_SHA256, index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(_SHA256)
    identity: Mapped[str] = mapped_column(_SHA256)
    provenance: Mapped[dict[str, Any]]
    quarantined_at: Mapped[datetime | None]
    tags: Mapped[list[DirectionTagRow]] = relationship(
        order_by="DirectionTagRow.tag", cascade="all, delete-orphan"
    )


class DirectionTagRow(Base):
    """One tag of a direction version."""

    __tablename__ = "direction_tags"

    direction_id: Mapped[int] = mapped_column(
        ROW_ID, ForeignKey("direction_versions.id"), primary_key=True
    )
    tag: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)


class ProfileRow(VersionedRow):
    """One version of a profile."""

    __tablename__ = "profile_versions"
    __table_args__ = (UniqueConstraint("name", "version"),)

    document: Mapped[dict[str, Any]]
    fingerprint: Mapped[str] = mapped_column(_SHA256)
    resid_norms: Mapped[dict[str, Any]]
    published_at: Mapped[datetime | None]
    directions: Mapped[list[DirectionRow]] = relationship(
        secondary="profile_directions", order_by="DirectionRow.id"
    )


class ProfileDirectionRow(Base):
    """A profile version uses a direction version."""

    __tablename__ = "profile_directions"

    profile_id: Mapped[int] = mapped_column(
        ROW_ID, ForeignKey("profile_versions.id"), primary_key=True
    )
    direction_id: Mapped[int] = mapped_column(
        ROW_ID, ForeignKey("direction_versions.id"), primary_key=True, index=True
    )


class AliasRow(Base):
    """A name that moves between profile versions."""

    __tablename__ = "aliases"

    name: Mapped[str] = mapped_column(_NAME, primary_key=True)
    profile_name: Mapped[str] = mapped_column(_NAME, index=True)
    profile_version: Mapped[int | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    updated_by: Mapped[str | None] = mapped_column(String(16))


class KeyRow(Base):
    """An API key; its secret is not here, only a digest of the whole key."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    digest: Mapped[bytes]
    scopes: Mapped[list[Any]]
    profiles_allow: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    default_profile: Mapped[str | None] = mapped_column(_NAME)
    requests_per_minute: Mapped[int | None]
    created_at: Mapped[datetime]
    created_by: Mapped[str | None] = mapped_column(String(16))
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class AuditRow(Base):
    """One event; `hash` covers every other column and the hash before it."""

    __tablename__ = "audit_events"

    sequence: Mapped[int] = mapped_column(ROW_ID, primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    key_id: Mapped[str | None] = mapped_column(String(16))
    request_id: Mapped[str | None]
    address: Mapped[str | None]
    action: Mapped[str] = mapped_column(String(64), index=True)
    subject: Mapped[str]
    before: Mapped[str | None]
    after: Mapped[str | None]
    detail: Mapped[dict[str, Any]]
    previous_hash: Mapped[str] = mapped_column(_SHA256)
    hash: Mapped[str] = mapped_column(_SHA256)


class AuditHeadRow(Base):
    """The end of the chain: its lock orders writers, its hash shows a cut-off tail.

    `last_change` is the number of the last event that changed what names of the registry mean.
    """

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sequence: Mapped[int] = mapped_column(BigInteger)
    last_change: Mapped[int] = mapped_column(BigInteger, server_default="0")
    hash: Mapped[str] = mapped_column(_SHA256)


class AnswerRow(Base):
    """A request that names itself, and its answer once there is one (`status` is not null)."""

    __tablename__ = "idempotent_answers"

    caller: Mapped[str] = mapped_column(String(16), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    request: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[datetime] = mapped_column(index=True)
    status: Mapped[int | None]
    headers: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    body: Mapped[bytes | None]
