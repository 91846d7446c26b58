"""Downloads a file, and goes on where a broken connection left off.

The bytes go to a `.part` file beside the destination, which gets its name only when size and SHA-256 equal the
footer's.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Protocol

from dataops.v1 import common_pb2, exports_pb2, imports_pb2

from dataops_client.errors import (
    Aborted,
    DataOpsError,
    FailedPrecondition,
    NotFound,
    TransferError,
    Unavailable,
    typed_errors,
)
from dataops_client.patience import DEFAULT_PATIENCE, Patience
from dataops_client.transfer import MESSAGE_BYTES, OnBytes
from dataops_client.write_behind import WriteBehind

MAX_RESTARTS = 5
"""Downloads begun anew since the file became another: a job has five attempts."""

_MAKING_SECONDS = 1.0
"""Between two questions whether a file has been made, where the server names no time."""

_Chunk = exports_pb2.DownloadExportResponse | imports_pb2.DownloadImportReportResponse
"""A message of a download, whichever rpc it comes from."""


class _Chunks(Protocol):
    """An open download, as grpc gives it."""

    def __iter__(self) -> Iterator[_Chunk]: ...
    def cancel(self) -> bool | None: ...


OpenStream = Callable[[int], _Chunks]
"""Begins a download at an offset."""

OnWaiting = Callable[[DataOpsError], None]
"""Told the server's word that the file is still being made."""


@dataclass(frozen=True)
class Downloaded:
    """A file that arrived whole."""

    path: Path
    size: int
    sha256: bytes


def download_file(
    open_stream: OpenStream,
    path: Path,
    *,
    source_id: str,
    on_bytes: OnBytes = lambda _done, _size: None,
    on_waiting: OnWaiting = lambda _error: None,
    patience: float = DEFAULT_PATIENCE,
) -> Downloaded:
    """Download into `path`, which appears (or is replaced) only when the file has arrived whole and equal.

    `open_stream(offset)` begins a download at an offset; `source_id` names what is downloaded, so that a `.part`
    file that an earlier attempt left is taken up only for the same thing. A file that the server is still making is
    asked for again until `patience` ends; `on_waiting` is told each time.

    Raises:
        TransferError: CHECKSUM_MISMATCH if what arrived is not what the footer says; nothing is kept of it.
        DataOpsError: what the server refused.
    """
    part = path.with_name(f".{path.name}.{source_id}.part")
    with _part_file(part) as file:
        with WriteBehind(file) as behind:
            footer = _Downloading(open_stream, file, behind, on_bytes, on_waiting, Patience(patience)).run()
        os.fsync(file.fileno())
        part.replace(path)
    return Downloaded(path, footer.size_bytes, footer.sha256)


@contextmanager
def _part_file(part: Path) -> Iterator[FileIO]:
    """The part, held by this process alone; an attempt that brought nothing leaves nothing."""
    with open(part, "r+b", buffering=0, opener=_made_if_missing) as file:
        _hold_alone(file)
        try:
            yield file
        except BaseException:
            if part.exists() and part.stat().st_size == 0:
                part.unlink()
            raise


def _made_if_missing(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def _hold_alone(file: FileIO) -> None:
    """Refuse a second download into the same part; systems without flock go without."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise TransferError(f"another download writes {file.name}", "DOWNLOAD_IN_PROGRESS") from error


class _Downloading:
    """One download until its footer: taken up at the offset that is on disk."""

    def __init__(
        self,
        open_stream: OpenStream,
        file: FileIO,
        behind: WriteBehind,
        on_bytes: OnBytes,
        on_waiting: OnWaiting,
        patience: Patience,
    ) -> None:
        self._open_stream = open_stream
        self._file = file
        self._behind = behind
        self._on_bytes = on_bytes
        self._on_waiting = on_waiting
        self._patience = patience
        self._hash = hashlib.sha256()
        self._offset = 0
        self._pieced = False
        self._restarts = 0

    def run(self) -> common_pb2.DownloadFooter:
        self._take_up()
        while True:
            try:
                footer = self._receive()
                self._check(footer)
            except DataOpsError as error:
                if self._begin_anew(error):
                    continue
                if error.reason == "REPORT_PART_BEING_MADE":
                    # a state that passes by itself, whatever its code
                    error.retry_delay = error.retry_delay or _MAKING_SECONDS
                    self._on_waiting(error)
                else:
                    self._drop_if_useless(error)
                self._patience.pause_or_raise(error)
            else:
                return footer

    def _take_up(self) -> None:
        """Hash what an earlier attempt left."""
        self._file.seek(0)
        while data := self._file.read(MESSAGE_BYTES):
            self._hash.update(data)
            self._offset += len(data)

    def _begin_anew(self, error: DataOpsError) -> bool:
        """Throw away what is here if it is of another file than the one there is now.

        An export whose worker was lost is written again, from another snapshot: whoever followed the first attempt
        may learn of it at once, by an offset that is too great, or only by the digest of the whole.
        """
        restarted = error.reason == "EXPORT_RESTARTED"
        mixed = self._pieced and error.reason in ("OFFSET_MISMATCH", "CHECKSUM_MISMATCH")
        if not (restarted or mixed) or self._restarts >= MAX_RESTARTS:
            return False
        self._restarts += 1
        self._behind.restart()
        self._hash, self._offset, self._pieced = hashlib.sha256(), 0, False
        return True

    def _receive(self) -> common_pb2.DownloadFooter:
        self._pieced = self._offset > 0
        stream = self._open_stream(self._offset)
        try:
            with typed_errors():
                for message in stream:
                    if message.WhichOneof("content") == "footer":
                        for _ in stream:  # on to the status: left here, the server would see a cancelled call
                            pass
                        return message.footer
                    self._take(message.offset, message.data)
        finally:
            stream.cancel()
        raise Unavailable(f"the stream ended at {self._offset} bytes without its footer", "FOOTER_MISSING")

    def _take(self, offset: int, data: bytes) -> None:
        if offset != self._offset:
            raise TransferError(f"a piece at {offset} arrived, {self._offset} expected", "PIECE_MISPLACED")
        self._behind.write(data)
        self._hash.update(data)
        self._offset += len(data)
        self._patience.progressed()
        self._on_bytes(self._offset, None)

    def _check(self, footer: common_pb2.DownloadFooter) -> None:
        if (footer.size_bytes, footer.sha256) == (self._offset, self._hash.digest()):
            return
        raise TransferError(
            f"{self._offset} bytes with sha256 {self._hash.hexdigest()} arrived, {footer.size_bytes} with "
            f"{footer.sha256.hex()} expected",
            "CHECKSUM_MISMATCH",
        )

    def _drop_if_useless(self, error: DataOpsError) -> None:
        """What is gone, has failed or is not equal will not be taken up again: its part must not stay behind."""
        gone = isinstance(error, NotFound | FailedPrecondition | Aborted)
        if gone or error.reason == "CHECKSUM_MISMATCH":
            Path(self._file.name).unlink(missing_ok=True)
