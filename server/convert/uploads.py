"""Uploads, from rows to the wire."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from dataops.v1 import uploads_pb2

from engine.db.models import PrincipalRow, UploadRow
from server.convert.common import number_of, principal, timestamp
from server.upload_stream import Receipt


def upload(row: UploadRow, owners: Mapping[uuid.UUID, PrincipalRow]) -> uploads_pb2.Upload:
    return uploads_pb2.Upload(
        upload_id=str(row.id),
        file_name=row.name,
        state=number_of(uploads_pb2.UploadState, row.state),
        committed_size=row.committed_size,
        declared_size=row.declared_size,
        declared_sha256=row.declared_sha256 or b"",
        sha256=row.sha256 or b"",
        owner=principal(row.principal_id, owners.get(row.principal_id)),
        created_at=timestamp(row.created_at),
        finished_at=timestamp(row.finished_at),
        expires_at=timestamp(row.expires_at),
    )


def written(receipt: Receipt) -> uploads_pb2.WriteUploadResponse:
    state = uploads_pb2.UPLOAD_STATE_FINISHED if receipt.finished else uploads_pb2.UPLOAD_STATE_OPEN
    return uploads_pb2.WriteUploadResponse(committed_size=receipt.committed_size, sha256=receipt.sha256, state=state)
