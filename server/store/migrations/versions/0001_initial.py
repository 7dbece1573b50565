"""The registry, API keys and the audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_NAME = sa.String(64)
_SHA256 = sa.String(64)
_KEY_ID = sa.String(16)
_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create every table."""
    _create_names()
    _create_directions()
    _create_profiles()
    _create_aliases()
    _create_keys()
    _create_audit()


def downgrade() -> None:
    """Drop every table."""
    for table in (
        "audit_head",
        "audit_events",
        "api_keys",
        "aliases",
        "profile_directions",
        "profile_versions",
        "direction_tags",
        "direction_versions",
        "names",
    ):
        op.drop_table(table)


def _create_names() -> None:
    op.create_table(
        "names",
        sa.Column("space", sa.String(16), nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("noun", sa.String(16)),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("space", "name", name="pk_names"),
    )


def _create_directions() -> None:
    op.create_table(
        "direction_versions",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("site", sa.String(16), nullable=False),
        sa.Column("layers", sa.JSON(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("norms", sa.JSON(), nullable=False),
        sa.Column("sha256", _SHA256, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", _SHA256, nullable=False),
        sa.Column("identity", _SHA256, nullable=False),
        sa.Column("model_fingerprint", sa.Text()),
        sa.Column("requires", sa.JSON(), nullable=False),
        sa.Column("provenance", sa.JSON(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", _KEY_ID),
        sa.Column("archived_at", _TIME),
        sa.Column("quarantined_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_direction_versions"),
        sa.UniqueConstraint("name", "version", name="uq_direction_versions_name_version"),
    )
    op.create_index("ix_direction_versions_sha256", "direction_versions", ["sha256"])
    op.create_index(
        "uq_direction_versions_live_identity",
        "direction_versions",
        ["name", "identity"],
        unique=True,
        sqlite_where=sa.text("archived_at IS NULL"),
        postgresql_where=sa.text("archived_at IS NULL"),
    )
    op.create_table(
        "direction_tags",
        _reference("direction_tags", "direction_id", "direction_versions"),
        sa.Column("tag", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("direction_id", "tag", name="pk_direction_tags"),
    )
    op.create_index("ix_direction_tags_tag", "direction_tags", ["tag"])


def _create_profiles() -> None:
    op.create_table(
        "profile_versions",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("fingerprint", _SHA256, nullable=False),
        sa.Column("model_fingerprint", sa.Text()),
        sa.Column("requires", sa.JSON(), nullable=False),
        sa.Column("resid_norms", sa.JSON(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", _KEY_ID),
        sa.Column("published_at", _TIME),
        sa.Column("archived_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_profile_versions"),
        sa.UniqueConstraint("name", "version", name="uq_profile_versions_name_version"),
    )
    op.create_table(
        "profile_directions",
        _reference("profile_directions", "profile_id", "profile_versions"),
        _reference("profile_directions", "direction_id", "direction_versions"),
        sa.PrimaryKeyConstraint("profile_id", "direction_id", name="pk_profile_directions"),
    )
    op.create_index("ix_profile_directions_direction_id", "profile_directions", ["direction_id"])


def _create_aliases() -> None:
    op.create_table(
        "aliases",
        sa.Column("name", _NAME, nullable=False),
        sa.Column("profile_name", _NAME, nullable=False),
        sa.Column("profile_version", sa.Integer()),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("updated_by", _KEY_ID),
        sa.PrimaryKeyConstraint("name", name="pk_aliases"),
    )
    op.create_index("ix_aliases_profile_name", "aliases", ["profile_name"])


def _create_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", _KEY_ID, nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("profiles_allow", sa.JSON()),
        sa.Column("default_profile", _NAME),
        sa.Column("requests_per_minute", sa.Integer()),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", _KEY_ID),
        sa.Column("expires_at", _TIME),
        sa.Column("revoked_at", _TIME),
        sa.Column("last_used_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )


def _create_audit() -> None:
    op.create_table(
        "audit_events",
        sa.Column("sequence", _ID, autoincrement=False, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("key_id", _KEY_ID),
        sa.Column("request_id", sa.Text()),
        sa.Column("address", sa.Text()),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("before", sa.Text()),
        sa.Column("after", sa.Text()),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("previous_hash", _SHA256, nullable=False),
        sa.Column("hash", _SHA256, nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit_events"),
    )
    op.create_index("ix_audit_events_action", "audit_events", ["action"])
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", _SHA256, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
    )


def _reference(table: str, column: str, target: str) -> sa.Column[int]:
    key = sa.ForeignKey(f"{target}.id", name=f"fk_{table}_{column}")
    return sa.Column(column, _ID, key, nullable=False)
