"""The name in a job's request in a column of its own, so that listings need not read requests."""

from __future__ import annotations

import json
import re
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_JOBS = sa.table("jobs", sa.column("sequence"), sa.column("request"), sa.column("name"))


def upgrade() -> None:
    """Add the column, filled from the requests there are, one at a time: each may be long."""
    op.add_column("jobs", sa.Column("name", sa.String(64)))
    connection = op.get_bind()
    for sequence in connection.scalars(sa.select(_JOBS.c.sequence)).all():
        here = _JOBS.c.sequence == sequence
        request = connection.scalars(sa.select(sa.cast(_JOBS.c.request, sa.Text)).where(here)).one()
        name = _name(json.loads(request))
        if name is not None:
            connection.execute(sa.update(_JOBS).where(here).values(name=name))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("jobs", "name")


def _name(request: Any) -> str | None:
    name = request.get("name") if isinstance(request, dict) else None
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None
