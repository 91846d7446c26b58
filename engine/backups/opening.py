"""From a backup's record to its archive: what the record says and what the manifest says must agree."""

from __future__ import annotations

from engine.backups.archive import Archive
from engine.backups.states import GOOD
from engine.db.models import BackupRow
from engine.errors import FailedPrecondition, InternalError
from engine.resources import Resources


def open_archive(resources: Resources, row: BackupRow) -> Archive:
    """The backup of this record, opened.

    Raises:
        FailedPrecondition: BACKUP_STATE, KEY_UNKNOWN; NotFound: BACKUP_GONE; DataLoss: KEY_WRONG, BACKUP_DAMAGED,
        PART_DAMAGED, BACKUP_FORMAT; InternalError: BACKUP_DAMAGED when the manifest is another backup's.
    """
    if row.status not in GOOD or row.artifact_id is None:
        raise wrong_state(row, "a good one")
    archive = resources.repository.open(row.artifact_id, row.manifest_sha256)
    if archive.manifest.backup_id != row.id:
        raise InternalError("the manifest of this backup names another", reason="BACKUP_DAMAGED")
    return archive


def wrong_state(row: BackupRow, expected: str) -> FailedPrecondition:
    """Raised where a backup's status does not allow what is asked for: BACKUP_STATE."""
    return FailedPrecondition(
        f"backup: found it {row.status}, expected {expected}", reason="BACKUP_STATE", metadata={"status": row.status}
    )
