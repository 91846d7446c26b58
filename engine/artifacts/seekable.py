"""An artifact as a file one can seek in: for a ZIP, whose directory stands at its end."""

from __future__ import annotations

import io
from bisect import bisect_right

from engine.artifacts.reader import ArtifactReader
from engine.errors import DataLoss, FailedPrecondition


class SeekableArtifact(io.RawIOBase):
    """A closed artifact, read-only, in any order; one part (8 MiB at most) is in memory at a time.

    Each part is verified before anything of it is handed out. The digest of the whole is not compared: whoever must
    know that reads from start to end once. For one thread.
    """

    def __init__(self, reader: ArtifactReader) -> None:
        """Raises:
        FailedPrecondition: ARTIFACT_NOT_CLOSED; DataLoss: ARTIFACT_DAMAGED when its parts do not join up.
        """
        if not reader.closed:
            raise FailedPrecondition(f"artifact {reader.artifact.id} is not closed yet", reason="ARTIFACT_NOT_CLOSED")
        self._reader = reader
        self._starts: list[int] = []
        self._numbers: list[int] = []
        end = 0
        for part in reader.parts():
            if part.offset != end:
                raise self._damaged(f"a part at {end}", part.offset)
            self._starts.append(end)
            self._numbers.append(part.number)
            end += part.length
        if end != reader.size:
            raise self._damaged(f"{reader.size} bytes", end)
        self._size = end
        self._position = 0
        self._opened: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to an offset from the start, the position or the end; beyond the end nothing is read.

        Raises:
            ValueError: the place would be before the start, or `whence` is unknown.
        """
        if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
            raise ValueError(f"whence: expected 0, 1 or 2, found {whence}")
        base = (0, self._position, self._size)[whence]
        if base + offset < 0:
            raise ValueError(f"expected a place from 0 on, found {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: object, /) -> int:
        """Fill the buffer, short only at the end: zipfile takes a short read for a cut-off file.

        Raises:
            DataLoss: PART_DAMAGED, PART_MISSING, KEY_WRONG; NotFound: ARTIFACT_GONE.
        """
        room = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        filled = 0
        while filled < len(room) and self._position < self._size:
            index = bisect_right(self._starts, self._position) - 1
            at = self._position - self._starts[index]
            taken = memoryview(self._part(index))[at : at + len(room) - filled]
            room[filled : filled + len(taken)] = taken
            filled += len(taken)
            self._position += len(taken)
        return filled

    def _part(self, index: int) -> bytes:
        if self._opened[0] != index:
            self._opened = (-1, b"")  # before the next one: never two
            self._opened = (index, self._reader.read_part(self._numbers[index]))
        return self._opened[1]

    def _damaged(self, expected: str, found: int) -> DataLoss:
        artifact_id = self._reader.artifact.id
        return DataLoss(
            f"artifact {artifact_id}: expected {expected}, found {found}",
            reason="ARTIFACT_DAMAGED",
            metadata={"artifact_id": str(artifact_id)},
        )
