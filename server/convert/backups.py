"""Backups, between the wire and the engine."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from dataops.v1 import backups_pb2, imports_pb2

from engine.backups.model import BackupRequest, BackupType, ExtractRequest, RowKey, VerifyLevel
from engine.backups.states import GOOD
from engine.db.models import BackupRow, PrincipalRow
from engine.ids import parse_id
from engine.imports.model import ImportType, RowChange
from server.convert.common import call_context, number_of, operation_error, timestamp, word_of
from server.convert.jobs import notice
from server.convert.plans import field_changes, row_key


def backup(
    row: BackupRow, principals: Mapping[uuid.UUID, PrincipalRow], parents: Collection[uuid.UUID] = ()
) -> backups_pb2.Backup:
    """`parents` are the ids of backups that others build on: deleting such a one is refused, and frees nothing."""
    return backups_pb2.Backup(
        backup_id=str(row.id),
        backup_type=number_of(backups_pb2.BackupType, row.backup_type),
        trigger_type=number_of(backups_pb2.TriggerType, row.trigger_type),
        file_url=f"dataops://backups/{row.id}" if row.status in GOOD else "",
        file_size_bytes=row.file_size_bytes,
        checksum=(row.manifest_sha256 or b"").hex(),
        status=number_of(backups_pb2.BackupStatus, row.status),
        created_by_admin_id=str(row.principal_id),
        restored_at=timestamp(row.restored_at),
        created_at=timestamp(row.created_at),
        name=row.name,
        entities=_entities(row),
        parent_backup_id=str(row.parent_id or ""),
        chain_backup_id=str(row.chain_id or ""),
        snapshot_at=timestamp(row.snapshot_at),
        completed_at=timestamp(row.completed_at),
        expires_at=timestamp(row.expires_at),
        held=row.held,
        freeable_size_bytes=row.file_size_bytes if row.status in GOOD and row.id not in parents else 0,
        verifications=[
            _verification(level, row.verifications[level]) for level in VerifyLevel if level in row.verifications
        ],
        not_covered=[notice(_not_covered(found["name"], found["why"])) for found in row.not_covered],
        job_id=str(row.job_id or ""),
        error=operation_error(row.error),
        context=call_context(row.principal_id, row.context, principals.get(row.principal_id)),
        schedule_id=str(row.schedule_id or ""),
        updated_at=timestamp(row.updated_at),
        total_size_bytes=row.total_size_bytes or row.file_size_bytes,  # a release before wrote full ones, and no total
        full_because=row.full_because,
    )


def difference(change: RowChange) -> backups_pb2.BackupDifference:
    return backups_pb2.BackupDifference(
        entity=change.entity,
        key=row_key(change),
        kind=number_of(imports_pb2.ChangeKind, change.kind),
        fields=field_changes(change),
    )


def entity_differences(records: Sequence[Mapping[str, Any]]) -> list[backups_pb2.EntityDifference]:
    return [
        backups_pb2.EntityDifference(
            entity=record["entity"],
            only_in_backup=record["only_in_backup"],
            only_live=record["only_live"],
            different=record["different"],
            equal=record["equal"],
        )
        for record in records
    ]


def request_of(request: backups_pb2.CreateBackupRequest) -> BackupRequest:
    return BackupRequest(
        entity_types=tuple(request.entity_types),
        backup_type=BackupType(word_of(backups_pb2.BackupType, request.backup_type) or BackupType.FULL),
        name=request.name,
        hold=request.hold,
    )


def level_of(number: int) -> VerifyLevel:
    """DECODED where none is said."""
    return VerifyLevel(word_of(backups_pb2.VerifyLevel, number) or VerifyLevel.DECODED)


def extract_of(request: backups_pb2.ExtractBackupRowsRequest) -> ExtractRequest:
    return ExtractRequest(
        backup_id=parse_id(request.backup_id, "backup_id"),
        entity=request.entity,
        keys=tuple(
            RowKey(tuple((v.name, v.value if v.HasField("value") else None) for v in key.values))
            for key in request.keys
        ),
        import_type=word_of(imports_pb2.ImportType, request.import_type) or ImportType.UPSERT,
    )


def _entities(row: BackupRow) -> list[backups_pb2.BackupEntity]:
    """With their numbers once it is complete; until then what was asked for."""
    records = row.entities or [{"entity": name, "rows": 0, "size_bytes": 0} for name in row.entity_types]
    return [
        backups_pb2.BackupEntity(entity=record["entity"], rows=record["rows"], size_bytes=record["size_bytes"])
        for record in records
    ]


def _verification(level: VerifyLevel, record: Mapping[str, Any]) -> backups_pb2.BackupVerification:
    return backups_pb2.BackupVerification(
        level=number_of(backups_pb2.VerifyLevel, level),
        verified_at=timestamp(datetime.fromisoformat(record["verified_at"])),
        good=record["good"],
        error=operation_error(record.get("error")),
    )


def _not_covered(name: str, why: str) -> dict[str, Any]:
    return {
        "code": "NOT_COVERED",
        "message": f"{name}: {why}",
        "severity": "WARNING",
        "metadata": {"name": name, "why": why},
    }
