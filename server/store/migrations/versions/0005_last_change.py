"""Which event of the audit log changed the registry last, so that uses of it need not count."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; any event up to now may have been a change."""
    op.add_column(
        "audit_head", sa.Column("last_change", sa.BigInteger, nullable=False, server_default="0")
    )
    op.execute("UPDATE audit_head SET last_change = sequence")


def downgrade() -> None:
    """Drop it."""
    op.drop_column("audit_head", "last_change")
