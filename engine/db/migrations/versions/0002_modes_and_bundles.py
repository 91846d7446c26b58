"""Imports into many entities and their changes as a file; exports of many entities. The release before runs on it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


FILL = """
CREATE FUNCTION dataops.fill_entity_types() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.entity_types := ARRAY[NEW.entity_type];
    RETURN NEW;
END $$;
CREATE TRIGGER fill_entity_types BEFORE INSERT ON dataops.imports
    FOR EACH ROW WHEN (NEW.entity_types = '{}' AND NEW.entity_type <> '') EXECUTE FUNCTION dataops.fill_entity_types();
"""
"""The release before knows no entity_types; an import without any would be everybody's to read and to apply."""


def upgrade() -> None:
    texts = postgresql.ARRAY(sa.Text())
    op.add_column("imports", sa.Column("entity_types", texts, nullable=False, server_default="{}"), schema="dataops")
    op.execute("UPDATE dataops.imports SET entity_types = ARRAY[entity_type]")
    op.execute(FILL)
    op.add_column("imports", sa.Column("changes_artifact_id", sa.UUID(), nullable=True), schema="dataops")
    op.add_column("imports", sa.Column("changes_job_id", sa.UUID(), nullable=True), schema="dataops")
    op.add_column("imports", sa.Column("confirmed_deletes", sa.BigInteger(), nullable=True), schema="dataops")
    op.add_column(
        "exports", sa.Column("entities", postgresql.JSONB(), nullable=False, server_default="[]"), schema="dataops"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER fill_entity_types ON dataops.imports; DROP FUNCTION dataops.fill_entity_types()")
    op.drop_column("exports", "entities", schema="dataops")
    for column in ("confirmed_deletes", "changes_job_id", "changes_artifact_id", "entity_types"):
        op.drop_column("imports", column, schema="dataops")
