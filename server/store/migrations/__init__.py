"""Alembic migrations; run by `server.store.database.upgrade`."""
