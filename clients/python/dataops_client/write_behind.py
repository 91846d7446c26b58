"""What arrives, on its way into a file: written by a thread of its own, past the page cache where the system can."""

from __future__ import annotations

import errno
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from io import FileIO
from time import monotonic
from types import TracebackType

BUFFER_BYTES = 8 << 20
"""Bytes that are written together, while as many more are taken."""

BLOCK = 4096
DIRECT_LEAST = 256 << 10
"""From here on O_DIRECT: less gains nothing by it."""

HELD_SECONDS = 1.0
"""No longer are bytes held while more arrive: who is killed loses so much of a slow download."""

FLUSH_BYTES = 32 << 20
"""So many are flushed together where they go through the page cache: left to the end, the flush of 256 MiB took
0.15 s there."""


class WriteBehind:
    """Appends to a file; on leaving all of it is with the system, after an error too, so that it can be taken up.

    The bytes of a download are not read again soon, and each 4 KiB of them would take a page of fresh memory: for
    432 MiB that was 0.8 s of the client's CPU on a virtual machine, where they take 0.1 s from the same 16 MiB.

    A write that fails is raised by every later `write` and `settle`, and on leaving: what came behind it is not
    written, so that the file has no gap. One thread uses it, and nobody else the file meanwhile.
    """

    def __init__(self, file: FileIO) -> None:
        """`file` is open for reading and writing, not for appending."""
        self._file = file
        self._direct = hasattr(os, "O_DIRECT")
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="dataops-write")
        self._under_way: Future[None] | None = None
        self._unflushed = 0
        self._due = 0.0
        self._buffer, self._other = mmap.mmap(-1, BUFFER_BYTES), mmap.mmap(-1, BUFFER_BYTES)
        self._begin_at(file.seek(0, os.SEEK_END))

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if error is None:
                self.settle()
            else:
                with suppress(OSError):
                    self.settle()
        finally:
            self._helper.shutdown()

    def write(self, data: bytes) -> None:
        """Take `data`; it may not be in the file yet."""
        left = memoryview(data)
        while left:
            taken = left[: BUFFER_BYTES - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            left = left[len(taken) :]
            if self._filled == BUFFER_BYTES or monotonic() >= self._due:
                self._hand_over()

    def settle(self) -> None:
        """Wait until the file has all that was written."""
        if self._filled > self._begin:
            self._hand_over()
        self._wait()

    def restart(self) -> None:
        """Empty the file."""
        self._wait()
        self._file.truncate(0)
        self._begin_at(0)

    def _begin_at(self, offset: int) -> None:
        # In its buffer each byte lies as in its block of the file, which is what O_DIRECT asks for. Emptied first, and
        # turned to the other buffer afterwards: wherever a signal breaks in, what is settled then belongs there.
        self._filled = offset % BLOCK
        self._begin = self._filled
        self._offset = offset

    def _hand_over(self) -> None:
        self._wait()
        self._due = monotonic() + HELD_SECONDS
        self._under_way = self._helper.submit(self._put, self._buffer, self._begin, self._filled, self._offset)
        self._begin_at(self._offset + self._filled - self._begin)
        self._buffer, self._other = self._other, self._buffer

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()  # again and again of one that failed

    def _put(self, buffer: mmap.mmap, begin: int, end: int, offset: int) -> None:
        first, last = -(-begin // BLOCK) * BLOCK, end // BLOCK * BLOCK
        with memoryview(buffer) as view:
            if self._direct and last - first >= DIRECT_LEAST:
                self._put_through_cache(view[begin:first], offset)
                begin, offset = first, offset + first - begin
                written = self._put_directly(view[first:last], offset)
                begin, offset = begin + written, offset + written
            self._put_through_cache(view[begin:end], offset)

    def _put_directly(self, data: memoryview, offset: int) -> int:
        """How much of it was written past the page cache: not all where the file system cannot, or not so."""
        import fcntl  # wherever O_DIRECT is

        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        written = 0
        try:
            fcntl.fcntl(self._file, fcntl.F_SETFL, flags | os.O_DIRECT)
            while written < len(data):
                written += os.pwrite(self._file.fileno(), data[written:], offset + written)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._direct = False
        finally:
            fcntl.fcntl(self._file, fcntl.F_SETFL, flags)
        return written

    def _put_through_cache(self, data: memoryview, offset: int) -> None:
        self._file.seek(offset)
        while data:
            written = self._file.write(data)
            self._unflushed += written
            data = data[written:]
        if self._unflushed >= FLUSH_BYTES:
            os.fsync(self._file.fileno())
            self._unflushed = 0
