"""The services of data over a real channel, with real jobs run between the calls."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from dataops.v1 import (
    backups_pb2,
    backups_pb2_grpc,
    common_pb2,
    exports_pb2,
    exports_pb2_grpc,
    imports_pb2,
    imports_pb2_grpc,
    restores_pb2,
    restores_pb2_grpc,
)

from engine.jobs.runner import Runner
from tests.server.rpc import Edge, error_info

HEADER = "id,email,name,role,created_at\n"
MIB = 1 << 20


def row(number: int, role: str = "DRIVER") -> str:
    return f"{uuid.UUID(int=number)},u{number}@example.org,User {number},{role},2026-01-02 03:04:05+00\n"


GOOD_AND_BAD = (HEADER + row(1) + row(2) + row(3, "PILOT") + row(1)).encode()


@dataclass
class Client:
    edge: Edge
    imports: imports_pb2_grpc.ImportServiceAsyncStub
    exports: exports_pb2_grpc.ExportServiceAsyncStub
    backups: backups_pb2_grpc.BackupServiceAsyncStub
    restores: restores_pb2_grpc.RestoreServiceAsyncStub
    runner: Runner
    made: dict[str, str] = field(default_factory=dict)

    async def upload(self, content: bytes, name: str = "users.csv") -> str:
        def finished() -> uuid.UUID:
            uploads, caller = self.edge.uploads, self.edge.caller()
            upload = uploads.start(caller, name, None, None, str(uuid.uuid4()), b"")
            stream = uploads.open_stream(caller, upload.id)
            for at in range(0, len(content), MIB):
                stream.write(at, content[at : at + MIB])
            stream.finish()
            stream.close()
            return upload.id

        return str(await asyncio.to_thread(finished))

    async def create(self, content: bytes = GOOD_AND_BAD, **fields: Any) -> imports_pb2.Import:
        request: dict[str, Any] = {
            "request_id": str(uuid.uuid4()),
            "upload_id": fields.pop("upload_id", None) or await self.upload(content),
            "import_type": imports_pb2.IMPORT_TYPE_ADDITIVE,
            "entity_type": "users",
        }
        return (await self.imports.CreateImport(imports_pb2.CreateImportRequest(**request | fields))).data_import

    async def planned(self, content: bytes = GOOD_AND_BAD, **fields: Any) -> imports_pb2.Import:
        made = await self.create(content, **fields)
        await self.run_jobs()
        return await self.get(made.import_id)

    async def get(self, import_id: str) -> imports_pb2.Import:
        return (await self.imports.GetImport(imports_pb2.GetImportRequest(import_id=import_id))).data_import

    async def export(self, **fields: Any) -> exports_pb2.Export:
        request: dict[str, Any] = {
            "request_id": str(uuid.uuid4()),
            "export_type": exports_pb2.EXPORT_TYPE_ENTITY,
            "entity_types": ["users"],
            "format": common_pb2.FILE_FORMAT_CSV,
        }
        return (await self.exports.CreateExport(exports_pb2.CreateExportRequest(**request | fields))).export

    async def backup(self, *entities: str, as_: str = "admin", **fields: Any) -> backups_pb2.Backup:
        request = backups_pb2.CreateBackupRequest(
            **{"request_id": str(uuid.uuid4()), "entity_types": entities} | fields
        )
        return (await self.backups.CreateBackup(request, metadata=by(as_))).backup

    async def backed_up(self, *entities: str, **fields: Any) -> backups_pb2.Backup:
        made = await self.backup(*entities, **fields)
        await self.run_jobs()
        return (await self.backups.GetBackup(backups_pb2.GetBackupRequest(backup_id=made.backup_id))).backup

    async def restore(self, backup_id: str, as_: str = "admin", **fields: Any) -> restores_pb2.Restore:
        request = restores_pb2.CreateRestoreRequest(
            **{"request_id": str(uuid.uuid4()), "backup_id": backup_id} | fields
        )
        return (await self.restores.CreateRestore(request, metadata=by(as_))).restore

    async def run_jobs(self) -> None:
        def run() -> None:
            while self.runner.run_next():
                pass

        await asyncio.to_thread(run)


def by(subject: str) -> tuple[tuple[str, str], ...]:
    """Metadata of a call by this subject."""
    return (("subject", subject),)


async def refusal(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), error_info(caught.value).reason


async def taken(call) -> tuple[bytes, common_pb2.DownloadFooter]:
    """A download's bytes and footer, which must be its last message."""
    *pieces, last = [message async for message in call]
    return b"".join(piece.data for piece in pieces), last.footer
