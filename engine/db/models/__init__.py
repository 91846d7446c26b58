"""Every table of the control schema, one module a noun. Importing this package fills `Model.metadata`."""

from engine.db.models.access import GrantRow, PrincipalRow, RequestIdRow, RoleRow
from engine.db.models.artifacts import ArtifactPartRow, ArtifactRow
from engine.db.models.audit import AuditEventRow
from engine.db.models.backups import BackupDiffRow, BackupRow, BackupVerificationRow
from engine.db.models.exports import ExportRow
from engine.db.models.imports import ImportRow
from engine.db.models.jobs import JobClaimRow, JobEventRow, JobRow, LeaseRow
from engine.db.models.restores import RestoreRow
from engine.db.models.retention import RetentionClockRow
from engine.db.models.schedules import ScheduleRow, ScheduleRunRow
from engine.db.models.uploads import UploadRow
from engine.db.models.webhooks import WebhookDeliveryRow, WebhookRow

__all__ = [
    "ArtifactPartRow",
    "ArtifactRow",
    "AuditEventRow",
    "BackupDiffRow",
    "BackupRow",
    "BackupVerificationRow",
    "ExportRow",
    "GrantRow",
    "ImportRow",
    "JobClaimRow",
    "JobEventRow",
    "JobRow",
    "LeaseRow",
    "PrincipalRow",
    "RequestIdRow",
    "RestoreRow",
    "RetentionClockRow",
    "RoleRow",
    "ScheduleRow",
    "ScheduleRunRow",
    "UploadRow",
    "WebhookDeliveryRow",
    "WebhookRow",
]
