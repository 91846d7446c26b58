"""BackupService: snapshots, what is known of them, and what is done with them."""

from __future__ import annotations

from typing import Any

from dataops.v1 import backups_pb2, backups_pb2_grpc, imports_pb2

from engine.backups.service import Backups
from engine.db.models import BackupRow
from engine.ids import parse_id
from engine.imports.model import ChangeKind
from server.caller import current_caller
from server.convert import backups as convert
from server.convert.common import body_sha256, moment, page_of, paging_of, placed_page, word_of
from server.convert.imports import data_import
from server.offload import Offload
from server.principals import Principals


class BackupService(backups_pb2_grpc.BackupServiceServicer):
    """One per server."""

    def __init__(self, backups: Backups, principals: Principals, offload: Offload) -> None:
        self._backups, self._principals, self._offload = backups, principals, offload

    async def CreateBackup(
        self, request: backups_pb2.CreateBackupRequest, context: Any
    ) -> backups_pb2.CreateBackupResponse:
        caller, wanted = current_caller(context), convert.request_of(request)
        row = await self._offload.call(
            lambda: self._backups.create(caller, wanted, request.request_id, body_sha256(request))
        )
        return backups_pb2.CreateBackupResponse(backup=await self._shown(row))

    async def GetBackup(self, request: backups_pb2.GetBackupRequest, context: Any) -> backups_pb2.GetBackupResponse:
        backup_id = parse_id(request.backup_id, "backup_id")
        row = await self._offload.call(self._backups.get, current_caller(context), backup_id)
        return backups_pb2.GetBackupResponse(backup=await self._shown(row))

    async def ListBackups(
        self, request: backups_pb2.ListBackupsRequest, context: Any
    ) -> backups_pb2.ListBackupsResponse:
        caller = current_caller(context)
        statuses = [word_of(backups_pb2.BackupStatus, number) for number in request.statuses]
        triggers = [word_of(backups_pb2.TriggerType, number) for number in request.trigger_types]
        created = moment(request.created, "start"), moment(request.created, "end")
        paging = paging_of(request, caller)
        page = await self._offload.call(
            self._backups.list, caller, paging, statuses, triggers, request.entity_type, created
        )
        principals = await self._principals.of(row.principal_id for row in page.items)
        parents = await self._offload.call(self._backups.parents_among, [row.id for row in page.items])
        backups, token = page_of(page, lambda row: convert.backup(row, principals, parents))
        return backups_pb2.ListBackupsResponse(backups=backups, next_page_token=token)

    async def VerifyBackup(
        self, request: backups_pb2.VerifyBackupRequest, context: Any
    ) -> backups_pb2.VerifyBackupResponse:
        caller, backup_id = current_caller(context), parse_id(request.backup_id, "backup_id")
        level, digest = convert.level_of(request.level), body_sha256(request)
        job_id = await self._offload.call(self._backups.verify, caller, backup_id, level, request.request_id, digest)
        return backups_pb2.VerifyBackupResponse(job_id=str(job_id))

    async def DiffBackup(self, request: backups_pb2.DiffBackupRequest, context: Any) -> backups_pb2.DiffBackupResponse:
        caller, backup_id = current_caller(context), parse_id(request.backup_id, "backup_id")
        entities, digest = tuple(request.entity_types), body_sha256(request)
        job_id = await self._offload.call(self._backups.diff, caller, backup_id, entities, request.request_id, digest)
        return backups_pb2.DiffBackupResponse(job_id=str(job_id))

    async def ListBackupDifferences(
        self, request: backups_pb2.ListBackupDifferencesRequest, context: Any
    ) -> backups_pb2.ListBackupDifferencesResponse:
        caller, job_id = current_caller(context), parse_id(request.job_id, "job_id")
        word, paging = word_of(imports_pb2.ChangeKind, request.kind), paging_of(request, caller)
        kind = ChangeKind(word) if word else None
        changes, token, entities = await self._offload.call(
            self._backups.differences, caller, job_id, paging, request.entity, kind
        )
        differences, token = placed_page(changes, paging, token, convert.difference)
        return backups_pb2.ListBackupDifferencesResponse(
            differences=differences,
            next_page_token=token,
            entities=[] if request.page_token else convert.entity_differences(entities),
        )

    async def ExtractBackupRows(
        self, request: backups_pb2.ExtractBackupRowsRequest, context: Any
    ) -> backups_pb2.ExtractBackupRowsResponse:
        caller, wanted = current_caller(context), convert.extract_of(request)
        row = await self._offload.call(
            lambda: self._backups.extract(caller, wanted, request.request_id, body_sha256(request))
        )
        shown = data_import(row, await self._principals.of([row.principal_id]))
        return backups_pb2.ExtractBackupRowsResponse(data_import=shown)

    async def HoldBackup(self, request: backups_pb2.HoldBackupRequest, context: Any) -> backups_pb2.HoldBackupResponse:
        backup_id = parse_id(request.backup_id, "backup_id")
        row = await self._offload.call(self._backups.hold, current_caller(context), backup_id)
        return backups_pb2.HoldBackupResponse(backup=await self._shown(row))

    async def ReleaseBackup(
        self, request: backups_pb2.ReleaseBackupRequest, context: Any
    ) -> backups_pb2.ReleaseBackupResponse:
        caller, backup_id = current_caller(context), parse_id(request.backup_id, "backup_id")
        row = await self._offload.call(lambda: self._backups.hold(caller, backup_id, held=False))
        return backups_pb2.ReleaseBackupResponse(backup=await self._shown(row))

    async def DeleteBackup(
        self, request: backups_pb2.DeleteBackupRequest, context: Any
    ) -> backups_pb2.DeleteBackupResponse:
        backup_id = parse_id(request.backup_id, "backup_id")
        row = await self._offload.call(self._backups.delete, current_caller(context), backup_id)
        return backups_pb2.DeleteBackupResponse(backup=await self._shown(row))

    async def _shown(self, row: BackupRow) -> backups_pb2.Backup:
        principals = await self._principals.of([row.principal_id])
        return convert.backup(row, principals, await self._offload.call(self._backups.parents_among, [row.id]))
