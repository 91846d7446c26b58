"""Backups, their verifications and comparisons, and restores. The release before runs on it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(astext_type=Text())
TEXTS = postgresql.ARRAY(sa.Text())
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "backups",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("backup_type", sa.Text(), nullable=False),
        sa.Column("trigger_type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("entity_types", TEXTS, nullable=False),
        sa.Column("principal_id", sa.UUID(), nullable=False),
        sa.Column("context", JSON, nullable=False),
        sa.Column("job_id", sa.UUID(), nullable=True),
        sa.Column("artifact_id", sa.UUID(), nullable=True),
        sa.Column("manifest_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("file_size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("entities", JSON, nullable=False),
        sa.Column("not_covered", JSON, nullable=False),
        sa.Column("parent_id", sa.UUID(), nullable=True),
        sa.Column("chain_id", sa.UUID(), nullable=True),
        sa.Column("schedule_id", sa.UUID(), nullable=True),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.Column("verifications", JSON, nullable=False),
        sa.Column("error", JSON, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("snapshot_at", TIME, nullable=True),
        sa.Column("completed_at", TIME, nullable=True),
        sa.Column("restored_at", TIME, nullable=True),
        sa.Column("expires_at", TIME, nullable=True),
        sa.CheckConstraint(
            "status IN ('PENDING', 'COMPLETED', 'FAILED', 'RESTORED', 'CANCELLED', 'EXPIRED', 'DELETED')",
            name=op.f("ck_backups_status"),
        ),
        sa.CheckConstraint("backup_type IN ('FULL', 'INCREMENTAL')", name=op.f("ck_backups_backup_type")),
        sa.CheckConstraint(
            "trigger_type IN ('MANUAL', 'SCHEDULED', 'PRE_IMPORT', 'PRE_RESTORE')",
            name=op.f("ck_backups_trigger_type"),
        ),
        sa.CheckConstraint(
            "(status IN ('COMPLETED', 'RESTORED')) <= (manifest_sha256 IS NOT NULL)",
            name=op.f("ck_backups_good_is_whole"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backups")),
        schema="dataops",
    )
    op.create_index("ix_backups_created", "backups", ["created_at", "id"], unique=False, schema="dataops")
    op.create_index("ix_backups_job_id", "backups", ["job_id"], unique=False, schema="dataops")
    op.create_index("ix_backups_expires_at", "backups", ["expires_at"], unique=False, schema="dataops")
    op.create_table(
        "backup_verifications",
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("backup_id", sa.UUID(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_backup_verifications")),
        schema="dataops",
    )
    op.create_table(
        "backup_diffs",
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("backup_id", sa.UUID(), nullable=False),
        sa.Column("entity_types", TEXTS, nullable=False),
        sa.Column("principal_id", sa.UUID(), nullable=False),
        sa.Column("artifact_id", sa.UUID(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=True),
        sa.Column("entities", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_backup_diffs")),
        schema="dataops",
    )
    op.create_index("ix_backup_diffs_backup_id", "backup_diffs", ["backup_id"], unique=False, schema="dataops")
    op.create_table(
        "restores",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("backup_id", sa.UUID(), nullable=False),
        sa.Column("entity_types", TEXTS, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("options", JSON, nullable=False),
        sa.Column("principal_id", sa.UUID(), nullable=False),
        sa.Column("context", JSON, nullable=False),
        sa.Column("plan_job_id", sa.UUID(), nullable=True),
        sa.Column("restore_job_id", sa.UUID(), nullable=True),
        sa.Column("plan", JSON, nullable=True),
        sa.Column("plan_digest", sa.LargeBinary(), nullable=True),
        sa.Column("plan_artifact_id", sa.UUID(), nullable=True),
        sa.Column("plan_expires_at", TIME, nullable=True),
        sa.Column("confirmation_phrase", sa.Text(), nullable=False),
        sa.Column("confirmed_by", sa.UUID(), nullable=True),
        sa.Column("confirmed_losses", sa.BigInteger(), nullable=True),
        sa.Column("approved_by", sa.UUID(), nullable=True),
        sa.Column("pre_restore_backup_id", sa.UUID(), nullable=True),
        sa.Column("report", JSON, nullable=True),
        sa.Column("error", JSON, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("completed_at", TIME, nullable=True),
        sa.CheckConstraint(
            "status IN ('PENDING', 'VALIDATING', 'AWAITING_CONFIRMATION', 'AWAITING_APPROVAL', 'PROCESSING',"
            " 'COMPLETED', 'FAILED', 'ROLLED_BACK', 'CANCELLED', 'EXPIRED')",
            name=op.f("ck_restores_status"),
        ),
        sa.ForeignKeyConstraint(["backup_id"], ["dataops.backups.id"], name=op.f("fk_restores_backup_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_restores")),
        schema="dataops",
    )
    op.create_index("ix_restores_created", "restores", ["created_at", "id"], unique=False, schema="dataops")
    op.create_index("ix_restores_backup_id", "restores", ["backup_id"], unique=False, schema="dataops")


def downgrade() -> None:
    for table in ("restores", "backup_diffs", "backup_verifications", "backups"):
        op.drop_table(table, schema="dataops")
