"""Backups for a program: make, look, prove, compare, take rows out. Part of `DataOps`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence

from dataops.v1 import backups_pb2, backups_pb2_grpc, common_pb2, imports_pb2

from dataops_client.errors import typed_errors
from dataops_client.imports import ImportCalls
from dataops_client.jobs import OnEvent, no_event
from dataops_client.paging import pages


class BackupCalls(ImportCalls):
    """The calls that are about backups; rows that are taken out of one become an import."""

    backups: backups_pb2_grpc.BackupServiceStub

    def create_backup(
        self,
        entities: Sequence[str] = (),
        *,
        incremental: bool = False,
        name: str = "",
        hold: bool = False,
        reason: str = "",
        wait: bool = True,
        on_event: OnEvent = no_event,
    ) -> backups_pb2.Backup:
        """Back up the entities or groups, everything if none is named, and return the complete backup; `incremental`
        only what changed since the newest backup of the same entities, if there is one that it can go by.

        Without `wait` the backup as it was recorded: its job goes on.

        Raises:
            JobFailed: there is no backup; the reason says why.
        """
        request = backups_pb2.CreateBackupRequest(
            request_id=str(uuid.uuid4()),
            backup_type=backups_pb2.BACKUP_TYPE_INCREMENTAL if incremental else backups_pb2.BACKUP_TYPE_FULL,
            entity_types=entities,
            name=name,
            hold=hold,
            reason=reason,
        )
        with typed_errors():
            recorded = self.backups.CreateBackup(request).backup
        if not wait:
            return recorded
        self.wait(recorded.job_id, on_event=on_event)
        return self.get_backup(recorded.backup_id)

    def get_backup(self, backup_id: str) -> backups_pb2.Backup:
        """One backup as it stands."""
        with typed_errors():
            return self.backups.GetBackup(backups_pb2.GetBackupRequest(backup_id=backup_id)).backup

    def list_backups(
        self,
        *,
        entity: str = "",
        statuses: Sequence[backups_pb2.BackupStatus.ValueType] = (),
        triggers: Sequence[backups_pb2.TriggerType.ValueType] = (),
        limit: int = 50,
    ) -> list[backups_pb2.Backup]:
        """The newest backups, at most `limit` and at most 1,000."""
        request = backups_pb2.ListBackupsRequest(
            entity_type=entity, statuses=statuses, trigger_types=triggers, page_size=limit
        )
        with typed_errors():
            return list(self.backups.ListBackups(request).backups)

    def verify_backup(
        self,
        backup_id: str,
        level: backups_pb2.VerifyLevel.ValueType = backups_pb2.VERIFY_LEVEL_DECODED,
        *,
        reason: str = "",
        on_event: OnEvent = no_event,
    ) -> backups_pb2.BackupVerification:
        """Prove a backup, and return the proof.

        Raises:
            JobFailed: it is not as it should be, which its `verifications` keep, or it could not be found out.
        """
        self.wait(self.begin_verification(backup_id, level, reason), on_event=on_event)
        return self.newest_verification(backup_id, level)

    def begin_verification(
        self,
        backup_id: str,
        level: backups_pb2.VerifyLevel.ValueType = backups_pb2.VERIFY_LEVEL_DECODED,
        reason: str = "",
    ) -> str:
        """Start to prove a backup; the job that does it."""
        request = backups_pb2.VerifyBackupRequest(
            request_id=str(uuid.uuid4()), backup_id=backup_id, level=level, reason=reason
        )
        with typed_errors():
            return self.backups.VerifyBackup(request).job_id

    def newest_verification(
        self, backup_id: str, level: backups_pb2.VerifyLevel.ValueType = backups_pb2.VERIFY_LEVEL_DECODED
    ) -> backups_pb2.BackupVerification:
        """What the newest proof of this level came to; one that is not good and has no time where there was none."""
        found = self.get_backup(backup_id).verifications
        return next((v for v in found if v.level == level), backups_pb2.BackupVerification(level=level))

    def diff_backup(
        self, backup_id: str, entities: Sequence[str] = (), *, reason: str = "", on_event: OnEvent = no_event
    ) -> str:
        """Compare a backup with the live rows, and return the job by which `backup_differences` knows what was found.

        Raises:
            JobFailed: it could not be compared.
        """
        job_id = self.begin_diff(backup_id, entities, reason)
        self.wait(job_id, on_event=on_event)
        return job_id

    def begin_diff(self, backup_id: str, entities: Sequence[str] = (), reason: str = "") -> str:
        """Start to compare a backup with the live rows; the job that does it."""
        request = backups_pb2.DiffBackupRequest(
            request_id=str(uuid.uuid4()), backup_id=backup_id, entity_types=entities, reason=reason
        )
        with typed_errors():
            return self.backups.DiffBackup(request).job_id

    def backup_difference_counts(self, job_id: str) -> list[backups_pb2.EntityDifference]:
        """How many rows of each entity a comparison found only in the backup, only live, different and equal."""
        request = backups_pb2.ListBackupDifferencesRequest(job_id=job_id, page_size=1)
        with typed_errors():
            return list(self.backups.ListBackupDifferences(request).entities)

    def backup_differences(
        self,
        job_id: str,
        *,
        entity: str = "",
        kind: imports_pb2.ChangeKind.ValueType = imports_pb2.CHANGE_KIND_UNSPECIFIED,
        page_size: int = 1000,
    ) -> Iterator[backups_pb2.BackupDifference]:
        """The rows that differ, page by page as they are read: their fields live before, in the backup after."""
        request = backups_pb2.ListBackupDifferencesRequest(job_id=job_id, entity=entity, kind=kind, page_size=page_size)
        for page in pages(self.backups.ListBackupDifferences, request):
            yield from page.differences

    def extract_rows(
        self,
        backup_id: str,
        entity: str,
        keys: Sequence[Mapping[str, str | None]],
        *,
        import_type: imports_pb2.ImportType.ValueType = imports_pb2.IMPORT_TYPE_UPSERT,
        reason: str = "",
        wait: bool = True,
        on_event: OnEvent = no_event,
    ) -> imports_pb2.Import:
        """Take rows out of a backup by their keys: a planned import, which `apply_import` applies.

        Without `wait` the import as it was recorded; `follow_import` waits for its plan.

        Raises:
            JobFailed: it could not be planned; the reason says why.
        """
        request = backups_pb2.ExtractBackupRowsRequest(
            request_id=str(uuid.uuid4()),
            backup_id=backup_id,
            entity=entity,
            keys=[
                backups_pb2.RowKey(values=[common_pb2.FieldValue(name=n, value=v) for n, v in key.items()])
                for key in keys
            ],
            import_type=import_type,
            reason=reason,
        )
        with typed_errors():
            recorded = self.backups.ExtractBackupRows(request).data_import
        return self.follow_import(recorded, on_event=on_event) if wait else recorded

    def hold_backup(self, backup_id: str, reason: str = "") -> backups_pb2.Backup:
        """Keep a backup from being removed until it is released."""
        request = backups_pb2.HoldBackupRequest(backup_id=backup_id, reason=reason)
        with typed_errors():
            return self.backups.HoldBackup(request).backup

    def release_backup(self, backup_id: str, reason: str = "") -> backups_pb2.Backup:
        """Take the hold off."""
        request = backups_pb2.ReleaseBackupRequest(backup_id=backup_id, reason=reason)
        with typed_errors():
            return self.backups.ReleaseBackup(request).backup

    def delete_backup(self, backup_id: str, reason: str = "") -> backups_pb2.Backup:
        """Delete a backup's bytes; BACKUP_IN_USE while something needs it."""
        request = backups_pb2.DeleteBackupRequest(backup_id=backup_id, reason=reason)
        with typed_errors():
            return self.backups.DeleteBackup(request).backup
