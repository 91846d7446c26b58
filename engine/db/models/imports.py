"""Imports: a file's way into an entity, from plan to report."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from engine.db.base import Model


class ImportRow(Model):
    """One import. `status` changes only through `engine.imports.states`."""

    __tablename__ = "imports"
    __table_args__ = (
        CheckConstraint(
            "status IN ('PENDING', 'VALIDATING', 'AWAITING_APPROVAL', 'PROCESSING', 'COMPLETED', 'FAILED',"
            " 'ROLLED_BACK', 'CANCELLED', 'EXPIRED')",
            name="status",
        ),
        CheckConstraint("import_type IN ('ADDITIVE', 'UPSERT', 'REPLACE')", name="import_type"),
        Index("ix_imports_created", "created_at", "id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    import_type: Mapped[str]
    entity_type: Mapped[str]
    """Empty for a bundle."""
    entity_types: Mapped[list[str]] = mapped_column(default=list)
    """The entities it writes; of a bundle those of its manifest, known once it is planned."""
    status: Mapped[str] = mapped_column(default="PENDING")
    upload_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dataops.uploads.id"))
    options: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """auto_apply, error_budget, on_drift, on_refused, csv …: `engine.imports.model.ImportOptions`."""
    principal_id: Mapped[uuid.UUID]
    context: Mapped[dict[str, Any]] = mapped_column(default=dict)

    plan_job_id: Mapped[uuid.UUID | None]
    apply_job_id: Mapped[uuid.UUID | None]
    plan_artifact_id: Mapped[uuid.UUID | None]
    plan_digest: Mapped[bytes | None]
    plan_summary: Mapped[dict[str, Any] | None]
    plan_expires_at: Mapped[datetime | None]
    pre_import_backup_id: Mapped[uuid.UUID | None]

    total_records: Mapped[int] = mapped_column(default=0)
    successful_records: Mapped[int] = mapped_column(default=0)
    failed_records: Mapped[int] = mapped_column(default=0)
    report: Mapped[dict[str, Any] | None]
    report_artifact_id: Mapped[uuid.UUID | None]
    rejects_artifact_id: Mapped[uuid.UUID | None]
    undo_artifact_id: Mapped[uuid.UUID | None]
    changes_artifact_id: Mapped[uuid.UUID | None]
    changes_job_id: Mapped[uuid.UUID | None]
    confirmed_deletes: Mapped[int | None]
    approval_needed: Mapped[bool | None]
    """Whether another person must approve the plan; NULL before there is one."""
    approved_by: Mapped[uuid.UUID | None]
    approved_digest: Mapped[bytes | None]
    """Of the plan that was approved: an approval is of one plan and dies with it."""
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
