"""Runs the migrations on the connection that `upgrade` opened, in its transaction."""

from __future__ import annotations

from alembic import context

from server.store.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
