"""Backups and restores of the fake server: one of each, over one World."""

from __future__ import annotations

import grpc
from dataops.v1 import backups_pb2, backups_pb2_grpc, restores_pb2, restores_pb2_grpc

from tests.clients.fake_world import World, page, refuse


class Backups(backups_pb2_grpc.BackupServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def CreateBackup(self, request, context):
        self.world.started.append(request)
        return backups_pb2.CreateBackupResponse(backup=self.world.backup)

    def GetBackup(self, request, context):
        if request.backup_id != self.world.backup.backup_id:
            refuse(context, grpc.StatusCode.NOT_FOUND, "BACKUP_UNKNOWN", "backup: found none with this id")
        return backups_pb2.GetBackupResponse(backup=self.world.backup)

    def ListBackups(self, request, context):
        self.world.asked.append(request)
        return backups_pb2.ListBackupsResponse(backups=[self.world.backup])

    def VerifyBackup(self, request, context):
        self.world.started.append(request)
        return backups_pb2.VerifyBackupResponse(job_id=self.world.job.job_id)

    def DiffBackup(self, request, context):
        self.world.started.append(request)
        return backups_pb2.DiffBackupResponse(job_id=self.world.job.job_id)

    def ListBackupDifferences(self, request, context):
        self.world.asked.append(request)
        found = [d for d in self.world.differences if request.kind in (0, d.kind)]
        differences, token = page(found, request.page_size, request.page_token)
        counts = [] if request.page_token else self.world.difference_counts
        return backups_pb2.ListBackupDifferencesResponse(
            differences=differences, next_page_token=token, entities=counts
        )

    def ExtractBackupRows(self, request, context):
        self.world.started.append(request)
        return backups_pb2.ExtractBackupRowsResponse(data_import=self.world.imported)

    def HoldBackup(self, request, context):
        self.world.started.append(request)
        self.world.backup.held = True
        return backups_pb2.HoldBackupResponse(backup=self.world.backup)

    def ReleaseBackup(self, request, context):
        self.world.started.append(request)
        self.world.backup.held = False
        return backups_pb2.ReleaseBackupResponse(backup=self.world.backup)

    def DeleteBackup(self, request, context):
        self.world.started.append(request)
        if self.world.backup.held:
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "BACKUP_IN_USE", "backup: it is held")
        self.world.backup.status = backups_pb2.BACKUP_STATUS_DELETED
        return backups_pb2.DeleteBackupResponse(backup=self.world.backup)


class Restores(restores_pb2_grpc.RestoreServiceServicer):
    """Its restore is planned; whoever confirms it finds it completed, or waiting for approval."""

    def __init__(self, world: World) -> None:
        self.world = world

    def CreateRestore(self, request, context):
        self.world.started.append(request)
        return restores_pb2.CreateRestoreResponse(restore=self.world.restore)

    def GetRestore(self, request, context):
        if request.restore_id != self.world.restore.restore_id:
            refuse(context, grpc.StatusCode.NOT_FOUND, "RESTORE_UNKNOWN", "restore: found none with this id")
        return restores_pb2.GetRestoreResponse(restore=self.world.restore)

    def ListRestores(self, request, context):
        self.world.asked.append(request)
        return restores_pb2.ListRestoresResponse(restores=[self.world.restore])

    def ListRestoreLosses(self, request, context):
        self.world.asked.append(request)
        found = [loss for loss in self.world.losses if request.entity in ("", loss.entity)]
        losses, token = page(found, request.page_size, request.page_token)
        return restores_pb2.ListRestoreLossesResponse(losses=losses, next_page_token=token)

    def ConfirmRestore(self, request, context):
        self.world.started.append(request)
        restore = self.world.restore
        if request.confirmation_phrase != restore.plan.confirmation_phrase:
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "PHRASE_WRONG", "confirmation_phrase: found another")
        if request.plan_digest != restore.plan.plan_digest:
            refuse(context, grpc.StatusCode.ABORTED, "PLAN_DIGEST_MISMATCH", "plan_digest: found another")
        restore.plan.confirmation_phrase = ""
        if self.world.needs_approval:
            restore.status = restores_pb2.RESTORE_STATUS_AWAITING_APPROVAL
        else:
            self._restored()
        return restores_pb2.ConfirmRestoreResponse(restore=restore)

    def ApproveRestore(self, request, context):
        self.world.started.append(request)
        self._restored()
        return restores_pb2.ApproveRestoreResponse(restore=self.world.restore)

    def CancelRestore(self, request, context):
        self.world.started.append(request)
        if self.world.restore.status == restores_pb2.RESTORE_STATUS_AWAITING_CONFIRMATION:
            self.world.restore.status = restores_pb2.RESTORE_STATUS_CANCELLED
        return restores_pb2.CancelRestoreResponse(restore=self.world.restore)

    def _restored(self) -> None:
        restore = self.world.restore
        restore.status = restores_pb2.RESTORE_STATUS_COMPLETED
        restore.restore_job_id = self.world.job.job_id
        restore.pre_restore_backup_id = self.world.backup.backup_id
        restore.report.entities.add(entity="users", rows_before=53, rows_after=50, rows_lost=3, rows_changed=2)
        restore.report.outage.FromMilliseconds(2400)
