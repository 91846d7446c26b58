"""Uploads a file, and goes on where a broken connection left off.

It is checked three times on its way: each message by CRC-32, the whole by the SHA-256 that both sides compute, and
the file itself by its size and time, so that one that changes under our hands is not half old, half new.
"""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from dataops.v1 import uploads_pb2, uploads_pb2_grpc

from dataops_client.errors import DataOpsError, TransferError, typed_errors
from dataops_client.patience import DEFAULT_PATIENCE, Patience
from dataops_client.transfer import MESSAGE_BYTES, OnBytes
from dataops_client.wire import Piece, UploadStub

STREAM_BYTES = 256 * 1024 * 1024
"""A stream's answer is the only acknowledgement, so a new one begins here; a multiple of the server's 8 MiB parts. Each
end waits until all is durable, 30 ms or so. A broken stream loses no more for being long: the server is asked what it
has."""


def upload_file(
    uploads: uploads_pb2_grpc.UploadServiceStub,
    path: Path,
    *,
    file_name: str = "",
    reason: str = "",
    upload_id: str = "",
    sha256: bytes = b"",
    on_begun: Callable[[uploads_pb2.Upload], None] = lambda _upload: None,
    on_bytes: OnBytes = lambda _done, _size: None,
    patience: float = DEFAULT_PATIENCE,
) -> uploads_pb2.Upload:
    """Upload a file and return the FINISHED upload; `upload_id` goes on with one that was begun before.

    `sha256` is the file's, to be declared where it is known before (32 bytes); `on_begun` is told the upload before
    its first byte is sent.

    Memory is one message whatever the file's size. A broken stream is taken up again from what the server has,
    for up to `patience` seconds without progress.

    Raises:
        TransferError: SOURCE_CHANGED if the file changed meanwhile, CHECKSUM_MISMATCH if the server holds other
            bytes (the upload is then aborted).
        DataOpsError: what the server refused.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        request = uploads_pb2.StartUploadRequest(
            request_id=str(uuid.uuid4()),
            file_name=file_name or path.name,
            size_bytes=status.st_size,
            sha256=sha256,
            reason=reason,
        )
        with typed_errors():
            if upload_id:
                upload = uploads.GetUpload(uploads_pb2.GetUploadRequest(upload_id=upload_id)).upload
            else:
                upload = uploads.StartUpload(request).upload
        on_begun(upload)
        _check_same_size(upload, status.st_size)
        source = _Source(file, path, status)
        return _Uploading(uploads, upload, source, on_bytes, Patience(patience)).run()


def _check_same_size(upload: uploads_pb2.Upload, size: int) -> None:
    declared = upload.declared_size if upload.HasField("declared_size") else size
    if declared != size or upload.committed_size > size:
        raise TransferError(
            f"upload {upload.upload_id} was begun with {max(declared, upload.committed_size)} bytes, the file "
            f"has {size}",
            "SOURCE_CHANGED",
        )


class _Source:
    """The file on its way out, hashed once in its order however often a part of it is sent.

    A lock, since the thread of a stream that has just failed may still be reading one message.
    """

    def __init__(self, file: IO[bytes], path: Path, status: os.stat_result) -> None:
        self._file = file
        self._path = path
        self._seen = (status.st_size, status.st_mtime_ns)
        self.size = status.st_size
        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self._hashed = 0

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`. Bytes before it that were never read are hashed on the way."""
        with self._lock:
            while self._hashed < offset:
                self._take(self._hashed, min(MESSAGE_BYTES, offset - self._hashed))
            return self._take(offset, length)

    def digest(self) -> bytes:
        """SHA-256 of the whole file, which is read as far as it has not been yet."""
        self.read(self.size, 0)
        return self._hash.digest()

    def check_unchanged(self) -> None:
        status = self._path.stat()
        if (status.st_size, status.st_mtime_ns) != self._seen:
            raise TransferError(
                f"{self._path.name} changed while it was uploaded: {self._seen[0]} bytes at the start, "
                f"{status.st_size} now or another time of change",
                "SOURCE_CHANGED",
            )

    def _take(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(length)
        if len(data) != length:
            raise TransferError(
                f"{self._path.name} changed while it was uploaded: {length} bytes expected at {offset}, "
                f"{len(data)} found",
                "SOURCE_CHANGED",
            )
        new = self._hashed - offset
        if new < length:
            self._hash.update(memoryview(data)[new:])
            self._hashed = offset + length
        return data


class _Uploading:
    """One upload until it is finished: streams of 256 MiB, each from where the server stands."""

    def __init__(
        self,
        uploads: uploads_pb2_grpc.UploadServiceStub,
        upload: uploads_pb2.Upload,
        source: _Source,
        on_bytes: OnBytes,
        patience: Patience,
    ) -> None:
        self._uploads = uploads
        self._upload = upload
        self._source = source
        self._on_bytes = on_bytes
        self._patience = patience
        self._failure: Exception | None = None

    def run(self) -> uploads_pb2.Upload:
        while self._upload.state == uploads_pb2.UPLOAD_STATE_OPEN:
            try:
                self._send_stream(self._upload.committed_size)
            except DataOpsError as error:
                # a wrong offset is mended by asking; whatever else is not transient is raised
                if error.reason != "OFFSET_MISMATCH":
                    self._patience.pause_or_raise(error)
                self._refresh_patiently()
        self._refresh_patiently()
        return self._checked()

    def _send_stream(self, offset: int) -> None:
        end = min(offset + STREAM_BYTES, self._source.size)
        pieces = self._pieces(offset, end)
        with typed_errors():
            if isinstance(self._uploads, UploadStub):
                answer = self._uploads.write_pieces(pieces)
            else:  # a stub that its user made
                answer = self._uploads.WriteUpload(piece.message() for piece in pieces)
        if self._failure is not None:
            raise self._failure
        self._upload.committed_size = answer.committed_size
        self._upload.state = answer.state
        self._patience.progressed()

    def _pieces(self, offset: int, end: int) -> Iterator[Piece]:
        """Runs on a thread of grpc, where an exception would only be logged: it is kept, and the stream ends."""
        first = offset
        finish = False
        try:
            while not finish and (offset < end or offset == first):
                data = self._source.read(offset, min(MESSAGE_BYTES, end - offset))
                at, offset = offset, offset + len(data)
                finish = offset == self._source.size
                if finish:
                    self._source.check_unchanged()
                head = uploads_pb2.WriteUploadRequest(
                    upload_id=self._upload.upload_id if at == first else "",
                    offset=at,
                    crc32=zlib.crc32(data),
                    finish=finish,
                )
                yield Piece(head, data)
                self._on_bytes(offset, self._source.size)
        except (OSError, DataOpsError) as error:
            self._failure = error

    def _refresh(self) -> None:
        request = uploads_pb2.GetUploadRequest(upload_id=self._upload.upload_id)
        before = self._upload.committed_size
        with typed_errors():
            self._upload = self._uploads.GetUpload(request).upload
        if self._upload.committed_size > before:
            self._patience.progressed()

    def _refresh_patiently(self) -> None:
        while True:
            try:
                return self._refresh()
            except DataOpsError as error:
                self._patience.pause_or_raise(error)

    def _checked(self) -> uploads_pb2.Upload:
        upload, state = self._upload, uploads_pb2.UploadState.Name(self._upload.state)
        if upload.state != uploads_pb2.UPLOAD_STATE_FINISHED:
            raise TransferError(f"upload {upload.upload_id} is {state}, expected FINISHED", "UPLOAD_NOT_OPEN")
        expected = self._source.digest()
        if upload.sha256 != expected:
            self._uploads.AbortUpload(uploads_pb2.AbortUploadRequest(upload_id=upload.upload_id))
            raise TransferError(
                f"the server holds sha256 {upload.sha256.hex()}, the file has {expected.hex()}",
                "CHECKSUM_MISMATCH",
            )
        return upload
