"""The control schema's first tables: jobs, artifacts, uploads, imports, exports, access, audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = """
CREATE FUNCTION dataops.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only: % refused', TG_OP USING ERRCODE = '42501';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON dataops.audit_events
    FOR EACH ROW EXECUTE FUNCTION dataops.refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON dataops.audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION dataops.refuse_change();
"""


def upgrade() -> None:
    op.create_table(
        "artifacts",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("owner_type", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.UUID(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("part_count", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'CLOSED') <= (sha256 IS NOT NULL)", name=op.f("ck_artifacts_closed_has_digest")),
        sa.CheckConstraint("state IN ('OPEN', 'CLOSED', 'DELETING')", name=op.f("ck_artifacts_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
        schema="dataops",
    )
    op.create_index("ix_artifacts_expires_at", "artifacts", ["expires_at"], unique=False, schema="dataops")
    op.create_index("ix_artifacts_owner", "artifacts", ["owner_type", "owner_id"], unique=False, schema="dataops")
    op.create_table(
        "audit_events",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("principal_id", sa.UUID(), nullable=True),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("resource_type", sa.Text(), nullable=False),
        sa.Column("resource_id", sa.Text(), nullable=False),
        sa.Column("intent_id", sa.UUID(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("context", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("details", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.CheckConstraint("kind IN ('INTENT', 'OUTCOME', 'ACCESS', 'DENIED')", name=op.f("ck_audit_events_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
        schema="dataops",
    )
    op.create_index("ix_audit_events_intent_id", "audit_events", ["intent_id"], unique=False, schema="dataops")
    op.create_index(
        "ix_audit_events_resource",
        "audit_events",
        ["resource_type", "resource_id"],
        unique=False,
        schema="dataops",
    )
    op.create_index("ix_audit_events_sequence", "audit_events", ["sequence"], unique=True, schema="dataops")
    op.create_table(
        "exports",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("export_type", sa.Text(), nullable=False),
        sa.Column("entity_types", postgresql.ARRAY(Text()), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("options", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("principal_id", sa.UUID(), nullable=False),
        sa.Column("context", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("job_id", sa.UUID(), nullable=True),
        sa.Column("artifact_id", sa.UUID(), nullable=True),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("file_size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("record_count", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("snapshot_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("export_type IN ('FULL', 'PARTIAL', 'ENTITY')", name=op.f("ck_exports_export_type")),
        sa.CheckConstraint(
            "status IN ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED', 'EXPIRED', 'DELETED')",
            name=op.f("ck_exports_status"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exports")),
        schema="dataops",
    )
    op.create_index("ix_exports_created", "exports", ["created_at", "id"], unique=False, schema="dataops")
    op.create_table(
        "jobs",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("resource_type", sa.Text(), nullable=False),
        sa.Column("resource_id", sa.UUID(), nullable=False),
        sa.Column("principal_id", sa.UUID(), nullable=False),
        sa.Column("context", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("intent_id", sa.UUID(), nullable=True),
        sa.Column("claims", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("max_attempts", sa.BigInteger(), nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("announced", sa.Boolean(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("progress", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("error", postgresql.JSONB(astext_type=Text()), nullable=True),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "state IN ('PENDING', 'RUNNING', 'CANCEL_REQUESTED', 'COMPLETED', 'FAILED', 'CANCELLED')",
            name=op.f("ck_jobs_state"),
        ),
        sa.CheckConstraint("(lease_owner IS NULL) = (lease_expires_at IS NULL)", name=op.f("ck_jobs_lease_is_whole")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        schema="dataops",
    )
    op.create_index("ix_jobs_created", "jobs", ["created_at", "id"], unique=False, schema="dataops")
    op.create_index(
        "ix_jobs_active",
        "jobs",
        ["lease_expires_at"],
        unique=False,
        schema="dataops",
        postgresql_where=sa.text("state IN ('RUNNING', 'CANCEL_REQUESTED')"),
    )
    op.create_index("ix_jobs_resource", "jobs", ["resource_type", "resource_id"], unique=False, schema="dataops")
    op.create_index(
        "ix_jobs_runnable",
        "jobs",
        ["priority", "run_at"],
        unique=False,
        schema="dataops",
        postgresql_where=sa.text("state = 'PENDING'"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
        schema="dataops",
    )
    op.create_table(
        "principals",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('USER', 'SERVICE')", name=op.f("ck_principals_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_principals")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_principals_issuer_subject")),
        schema="dataops",
    )
    op.create_table(
        "request_ids",
        sa.Column("principal_id", sa.UUID(), nullable=False),
        sa.Column("rpc", sa.Text(), nullable=False),
        sa.Column("request_id", sa.UUID(), nullable=False),
        sa.Column("body_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("resource_id", sa.UUID(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("principal_id", "rpc", "request_id", name=op.f("pk_request_ids")),
        schema="dataops",
    )
    op.create_index("ix_request_ids_created_at", "request_ids", ["created_at"], unique=False, schema="dataops")
    op.create_table(
        "roles",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("permissions", postgresql.ARRAY(Text()), nullable=False),
        sa.Column("built_in", sa.Boolean(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_roles")),
        schema="dataops",
    )
    op.create_table(
        "artifact_parts",
        sa.Column("artifact_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("stored_length", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("index", postgresql.JSONB(astext_type=Text()), nullable=True),
        sa.ForeignKeyConstraint(
            ["artifact_id"],
            ["dataops.artifacts.id"],
            name=op.f("fk_artifact_parts_artifact_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("artifact_id", "number", name=op.f("pk_artifact_parts")),
        sa.UniqueConstraint("name", name=op.f("uq_artifact_parts_name")),
        schema="dataops",
    )
    op.create_table(
        "grants",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("principal_id", sa.UUID(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("granted_by", sa.UUID(), nullable=True),
        sa.Column("granted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["principal_id"], ["dataops.principals.id"], name=op.f("fk_grants_principal_id")),
        sa.ForeignKeyConstraint(["role"], ["dataops.roles.name"], name=op.f("fk_grants_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
        sa.UniqueConstraint("principal_id", "role", name=op.f("uq_grants_principal_id_role")),
        schema="dataops",
    )
    op.create_index("ix_grants_granted", "grants", ["granted_at", "id"], unique=False, schema="dataops")
    op.create_table(
        "job_claims",
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.CheckConstraint("mode IN ('READ', 'WRITE', 'EXCLUSIVE')", name=op.f("ck_job_claims_mode")),
        sa.ForeignKeyConstraint(["job_id"], ["dataops.jobs.id"], name=op.f("fk_job_claims_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "entity", name=op.f("pk_job_claims")),
        schema="dataops",
    )
    op.create_index("ix_job_claims_queue", "job_claims", ["entity", "position"], unique=False, schema="dataops")
    op.create_table(
        "job_events",
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["dataops.jobs.id"], name=op.f("fk_job_events_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "sequence", name=op.f("pk_job_events")),
        schema="dataops",
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("principal_id", sa.UUID(), nullable=False),
        sa.Column("context", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("artifact_id", sa.UUID(), nullable=True),
        sa.Column("declared_size", sa.BigInteger(), nullable=True),
        sa.Column("declared_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("committed_size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('OPEN', 'FINISHED', 'ABORTED', 'EXPIRED', 'CONSUMED')", name=op.f("ck_uploads_state")
        ),
        sa.ForeignKeyConstraint(
            ["artifact_id"],
            ["dataops.artifacts.id"],
            name=op.f("fk_uploads_artifact_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
        schema="dataops",
    )
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"], unique=False, schema="dataops")
    op.create_index(
        "ix_uploads_principal_id", "uploads", ["principal_id", "created_at"], unique=False, schema="dataops"
    )
    op.create_table(
        "imports",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("import_type", sa.Text(), nullable=False),
        sa.Column("entity_type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("upload_id", sa.UUID(), nullable=False),
        sa.Column("options", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("principal_id", sa.UUID(), nullable=False),
        sa.Column("context", postgresql.JSONB(astext_type=Text()), nullable=False),
        sa.Column("plan_job_id", sa.UUID(), nullable=True),
        sa.Column("apply_job_id", sa.UUID(), nullable=True),
        sa.Column("plan_artifact_id", sa.UUID(), nullable=True),
        sa.Column("plan_digest", sa.LargeBinary(), nullable=True),
        sa.Column("plan_summary", postgresql.JSONB(astext_type=Text()), nullable=True),
        sa.Column("plan_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pre_import_backup_id", sa.UUID(), nullable=True),
        sa.Column("total_records", sa.BigInteger(), nullable=False),
        sa.Column("successful_records", sa.BigInteger(), nullable=False),
        sa.Column("failed_records", sa.BigInteger(), nullable=False),
        sa.Column("report", postgresql.JSONB(astext_type=Text()), nullable=True),
        sa.Column("report_artifact_id", sa.UUID(), nullable=True),
        sa.Column("rejects_artifact_id", sa.UUID(), nullable=True),
        sa.Column("undo_artifact_id", sa.UUID(), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("import_type IN ('ADDITIVE', 'UPSERT', 'REPLACE')", name=op.f("ck_imports_import_type")),
        sa.CheckConstraint(
            "status IN ('PENDING', 'VALIDATING', 'AWAITING_APPROVAL', 'PROCESSING', 'COMPLETED', 'FAILED', 'ROLLED_BACK', 'CANCELLED', 'EXPIRED')",
            name=op.f("ck_imports_status"),
        ),
        sa.ForeignKeyConstraint(["upload_id"], ["dataops.uploads.id"], name=op.f("fk_imports_upload_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_imports")),
        schema="dataops",
    )
    op.create_index("ix_imports_created", "imports", ["created_at", "id"], unique=False, schema="dataops")
    op.execute(APPEND_ONLY)
