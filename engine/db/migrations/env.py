"""Alembic's entry: `engine.db.migrate` has put an open connection into the configuration."""

from __future__ import annotations

from alembic import context

import engine.db.models  # noqa: F401  fills the metadata
from engine.db.base import SCHEMA, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_schemas=True,
    include_name=lambda name, kind, _parents: kind != "schema" or name == SCHEMA,
    version_table_schema=SCHEMA,
    compare_server_default=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
