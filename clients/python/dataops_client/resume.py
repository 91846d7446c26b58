"""Remembers uploads that have not ended, so that the same file goes on in another process.

One small file for each, in the user's state folder, named by what it is about: the file's absolute path, size and
time of change, and the server. It holds the upload's id, the path and the server, and no secret. It only ever saves
work: whatever is wrong with it, the upload begins anew, and the one that is of no use any more is aborted.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dataops.v1 import uploads_pb2, uploads_pb2_grpc

from dataops_client.errors import DataOpsError, FailedPrecondition, NotFound, TransferError, typed_errors
from dataops_client.patience import DEFAULT_PATIENCE
from dataops_client.transfer import MESSAGE_BYTES, OnBytes
from dataops_client.upload import upload_file

_KEPT_SECONDS = 7 * 24 * 3600
"""A server drops an upload after a day or so; what is older is of no use to anyone."""

_TOLD_BYTES = 64 * MESSAGE_BYTES
"""A checksum is told this often: a small file's is over before anyone could look."""


def state_folder() -> Path:
    """Where uploads are remembered: under XDG_STATE_HOME, which must be absolute, else under ~/.local/state."""
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".local" / "state") / "dataops" / "uploads"


@dataclass(frozen=True)
class UploadMemory:
    """Where the uploads to one server are remembered."""

    folder: Path
    server: str
    """Its address: an upload of one server means nothing to another."""

    @contextmanager
    def of(self, path: Path) -> Iterator[_Entry]:
        """What is remembered of a file, held by this process alone; nothing, and for nobody, if it cannot be."""
        file = self._opened(path.absolute())
        with file or nullcontext():
            yield _Entry(file, {"path": str(path.absolute()), "server": self.server})

    def take_useless(self, path: Path) -> list[str]:
        """Forget the uploads of what this file was before it changed, and give their ids.

        Not those that another process is at, nor that of the file as it is now.
        """
        of = {"path": str(path.absolute()), "server": self.server}
        ids = []
        for place in self.folder.glob("*.json"):
            with suppress(OSError):
                if place != self._place(path.absolute()):
                    ids += _taken_from(place, of)
        return ids

    def _opened(self, path: Path) -> IO[str] | None:
        place = self._place(path)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._drop_old()
            file = place.open("a+", encoding="utf-8")
        except OSError:  # a home that cannot be written to must not keep anyone from importing
            return None
        if not _held_alone(file):  # the same file is on its way from another process: each has its own upload
            file.close()
            return None
        return file

    def _place(self, path: Path) -> Path:
        status = path.stat()
        key = json.dumps([str(path), status.st_size, status.st_mtime_ns, self.server])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"

    def _drop_old(self) -> None:
        for old in self.folder.glob("*.json"):
            with suppress(OSError):
                if time.time() - old.stat().st_mtime > _KEPT_SECONDS:
                    old.unlink()


def _taken_from(place: Path, of: dict[str, str]) -> list[str]:
    """The id in a file of the memory, which is then gone; nothing if it is about something else, or held."""
    with place.open("r+", encoding="utf-8") as file:
        found = _Entry(file, of)
        if not found.is_of(of) or not _held_alone(file):
            return []
        upload_id = found.read()
        place.unlink(missing_ok=True)
        return [upload_id] if upload_id else []


class _Entry:
    """The id of one upload, on disk before its first byte is sent. Without a file it remembers nothing."""

    def __init__(self, file: IO[str] | None, of: dict[str, str]) -> None:
        self._file = file
        self._of = of

    def read(self) -> str:
        """The id, or nothing."""
        upload_id = self._content().get("upload_id")
        return upload_id if isinstance(upload_id, str) else ""

    def is_of(self, of: dict[str, str]) -> bool:
        """Whether it is about that file at that server."""
        return self._content().items() >= of.items()

    def _content(self) -> dict[str, object]:
        if self._file is None:
            return {}
        self._file.seek(0)
        try:
            found = json.load(self._file)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def remember(self, upload: uploads_pb2.Upload) -> None:
        """For `on_begun` of an upload."""
        if self._file is not None:
            with suppress(OSError):
                self._file.truncate(0)
                json.dump({"upload_id": upload.upload_id, **self._of}, self._file)
                self._file.flush()

    @contextmanager
    def until_it_ends(self) -> Iterator[None]:
        """Forget the upload when the block ends well, or in what it can never be finished after."""
        try:
            yield
        except (TransferError, FailedPrecondition, NotFound):
            self._forget()
            raise
        self._forget()

    def _forget(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                Path(self._file.name).unlink(missing_ok=True)


def upload_remembered(
    uploads: uploads_pb2_grpc.UploadServiceStub,
    path: Path,
    memory: UploadMemory,
    *,
    fresh: bool = False,
    reason: str = "",
    on_bytes: OnBytes = lambda _done, _size: None,
    on_checked: OnBytes = lambda _done, _size: None,
    on_resumed: Callable[[uploads_pb2.Upload], None] = lambda _upload: None,
    patience: float = DEFAULT_PATIENCE,
) -> uploads_pb2.Upload:
    """Upload a file and return the FINISHED upload; one that an earlier process began is taken up, unless `fresh`.

    One that is of no use, since the file has changed or a fresh one is wanted, is aborted: its room is the caller's.

    The file is read once before (`on_checked` tells how far): its SHA-256 is declared, and an upload is taken up
    only if what was declared equals it. `on_resumed` is told the upload that is taken up.

    Raises:
        TransferError, DataOpsError: as `upload_file`.
    """
    with memory.of(path) as entry:
        sha256 = _digest(path, on_checked)
        for useless in memory.take_useless(path):
            _abort(uploads, useless)
        remembered = entry.read()
        begun = None if fresh else _begun(uploads, remembered, sha256)
        if remembered and begun is None:
            _abort(uploads, remembered)
        if begun is not None:
            on_resumed(begun)
        with entry.until_it_ends():
            return upload_file(
                uploads,
                path,
                reason=reason,
                upload_id=begun.upload_id if begun else "",
                sha256=sha256,
                on_begun=entry.remember,
                on_bytes=on_bytes,
                patience=patience,
            )


def _begun(uploads: uploads_pb2_grpc.UploadServiceStub, upload_id: str, sha256: bytes) -> uploads_pb2.Upload | None:
    """The upload of an earlier process, if it can go on with these bytes."""
    if not upload_id:
        return None
    try:
        with typed_errors():
            upload = uploads.GetUpload(uploads_pb2.GetUploadRequest(upload_id=upload_id)).upload
    except DataOpsError as error:
        if error.transient:
            raise
        return None
    usable = upload.state in (uploads_pb2.UPLOAD_STATE_OPEN, uploads_pb2.UPLOAD_STATE_FINISHED)
    return upload if usable and upload.declared_sha256 == sha256 else None


def _abort(uploads: uploads_pb2_grpc.UploadServiceStub, upload_id: str) -> None:
    """End an upload that nobody will finish; one that is imported from, ended or unknown stays as it is."""
    with suppress(DataOpsError), typed_errors():
        upload = uploads.GetUpload(uploads_pb2.GetUploadRequest(upload_id=upload_id)).upload
        if upload.state == uploads_pb2.UPLOAD_STATE_OPEN:
            uploads.AbortUpload(
                uploads_pb2.AbortUploadRequest(upload_id=upload_id, reason="superseded by another upload of the file")
            )


def _digest(path: Path, on_checked: OnBytes) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size, done = os.fstat(file.fileno()).st_size, 0
        while data := file.read(MESSAGE_BYTES):
            digest.update(data)
            done += len(data)
            if done % _TOLD_BYTES == 0:
                on_checked(done, size)
    return digest.digest()


def _held_alone(file: IO[str]) -> bool:
    """True if no other process holds it; systems without flock go without."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
