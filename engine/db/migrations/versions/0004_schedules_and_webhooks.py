"""Schedules and their runs, webhooks and their deliveries, approval of imports, retention's clock. The release before runs
on it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(astext_type=Text())
TEXTS = postgresql.ARRAY(sa.Text())
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("backup_type", sa.Text(), nullable=False),
        sa.Column("entity_types", TEXTS, nullable=False),
        sa.Column("retention_seconds", sa.Double(), nullable=True),
        sa.Column("verify_level", sa.Text(), nullable=True),
        sa.Column("overlap_policy", sa.Text(), nullable=False),
        sa.Column("catch_up_seconds", sa.Double(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("next_run_at", TIME, nullable=True),
        sa.Column("last_run_at", TIME, nullable=True),
        sa.Column("last_backup_id", sa.UUID(), nullable=True),
        sa.Column("missed_runs", sa.BigInteger(), nullable=False),
        sa.Column("skipped_runs", sa.BigInteger(), nullable=False),
        sa.Column("failed_runs", sa.BigInteger(), nullable=False),
        sa.Column("last_error", JSON, nullable=True),
        sa.Column("principal_id", sa.UUID(), nullable=False),
        sa.Column("context", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("deleted_at", TIME, nullable=True),
        sa.CheckConstraint("backup_type IN ('FULL', 'INCREMENTAL')", name=op.f("ck_schedules_backup_type")),
        sa.CheckConstraint(
            "verify_level IN ('PRESENT', 'DECODED', 'RESTORED')", name=op.f("ck_schedules_verify_level")
        ),
        sa.CheckConstraint("overlap_policy IN ('SKIP', 'BUFFER_ONE')", name=op.f("ck_schedules_overlap_policy")),
        sa.CheckConstraint(
            "(paused OR deleted_at IS NOT NULL) <= (next_run_at IS NULL)", name=op.f("ck_schedules_paused_is_not_due")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        schema="dataops",
    )
    op.create_index("ix_schedules_created", "schedules", ["created_at", "id"], unique=False, schema="dataops")
    op.create_index(
        "ix_schedules_next_run_at",
        "schedules",
        ["next_run_at"],
        unique=False,
        schema="dataops",
        postgresql_where=sa.text("next_run_at IS NOT NULL"),
    )
    op.create_table(
        "schedule_runs",
        sa.Column("schedule_id", sa.UUID(), nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("backup_id", sa.UUID(), nullable=True),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("retry_at", TIME, nullable=True),
        sa.Column("error", JSON, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint(
            "outcome IN ('STARTED', 'WAITING', 'SKIPPED', 'MISSED', 'FAILED')", name=op.f("ck_schedule_runs_outcome")
        ),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["dataops.schedules.id"], name=op.f("fk_schedule_runs_schedule_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("schedule_id", "due_at", name=op.f("pk_schedule_runs")),
        schema="dataops",
    )
    op.create_index("ix_schedule_runs_backup_id", "schedule_runs", ["backup_id"], unique=False, schema="dataops")
    op.create_index(
        "ix_schedule_runs_waiting",
        "schedule_runs",
        ["schedule_id"],
        unique=False,
        schema="dataops",
        postgresql_where=sa.text("outcome = 'WAITING'"),
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("job_kinds", TEXTS, nullable=False),
        sa.Column("job_states", TEXTS, nullable=False),
        sa.Column("schedule_id", sa.UUID(), nullable=True),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("signing_key", sa.LargeBinary(), nullable=False),
        sa.Column("principal_id", sa.UUID(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("deleted_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
        schema="dataops",
    )
    op.create_index("ix_webhooks_created", "webhooks", ["created_at", "id"], unique=False, schema="dataops")
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("webhook_id", sa.UUID(), nullable=False),
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("last_status", sa.BigInteger(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.Column("next_attempt_at", TIME, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.CheckConstraint("state IN ('PENDING', 'DELIVERED', 'FAILED')", name=op.f("ck_webhook_deliveries_state")),
        sa.ForeignKeyConstraint(["webhook_id"], ["dataops.webhooks.id"], name=op.f("fk_webhook_deliveries_webhook_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        schema="dataops",
    )
    for name, columns in (("created", ["created_at", "id"]), ("webhook_id", ["webhook_id"])):
        op.create_index(f"ix_webhook_deliveries_{name}", "webhook_deliveries", columns, unique=False, schema="dataops")
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["next_attempt_at"],
        unique=False,
        schema="dataops",
        postgresql_where=sa.text("state = 'PENDING'"),
    )
    op.create_table(
        "retention_clock",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.Column("even_since", TIME, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_retention_clock_only")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retention_clock")),
        schema="dataops",
    )
    op.add_column(
        "backups",
        sa.Column("total_size_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        schema="dataops",
    )
    op.add_column(
        "backups",
        sa.Column("full_because", sa.Text(), server_default=sa.text("''"), nullable=False),
        schema="dataops",
    )
    op.add_column("backups", sa.Column("retention_seconds", sa.Double(), nullable=True), schema="dataops")
    op.create_index(
        "ix_backups_schedule_id",
        "backups",
        ["schedule_id"],
        unique=False,
        schema="dataops",
        postgresql_where=sa.text("schedule_id IS NOT NULL"),
    )
    op.create_index("ix_backups_parent_id", "backups", ["parent_id"], unique=False, schema="dataops")
    op.add_column("imports", sa.Column("approval_needed", sa.Boolean(), nullable=True), schema="dataops")
    op.add_column("imports", sa.Column("approved_by", sa.UUID(), nullable=True), schema="dataops")
    op.add_column("imports", sa.Column("approved_digest", sa.LargeBinary(), nullable=True), schema="dataops")


def downgrade() -> None:
    op.drop_index("ix_backups_schedule_id", "backups", schema="dataops")
    op.drop_index("ix_backups_parent_id", table_name="backups", schema="dataops")
    op.drop_column("backups", "retention_seconds", schema="dataops")
    op.drop_column("backups", "full_because", schema="dataops")
    op.drop_column("backups", "total_size_bytes", schema="dataops")
    for column in ("approved_digest", "approved_by", "approval_needed"):
        op.drop_column("imports", column, schema="dataops")
    op.drop_table("retention_clock", schema="dataops")
    for table in ("webhook_deliveries", "webhooks", "schedule_runs", "schedules"):
        op.drop_table(table, schema="dataops")
