"""A backup's rows into a table: in COPY's binary format as far as they can be turned into it, the rest as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain

from psycopg import sql

from engine.backups.archive import Archive
from engine.backups.binary import Turn, pieces_of, turn_of
from engine.backups.manifest import BackedEntity
from engine.backups.work import Work
from engine.db.binary import HEADER, TRAILER
from engine.db.copy import write_copy
from engine.db.platform import Connection
from engine.imports.sqltext import joined


def load(
    work: Work,
    connection: Connection,
    archive: Archive,
    entity: BackedEntity,
    table: sql.Composable,
    columns: Sequence[str],
    *,
    done: int = 0,
) -> int:
    """Copies the entity's rows into these columns of the table, which are the stream's, in its order. Outside a
    transaction, what came before an error may stay.

    Args:
        done: rows of the present stage that were done before.

    Returns:
        The rows, as the server counted them.

    Raises:
        psycopg.Error: what the table refuses.
        DataLoss: what `Archive.rows` raises; where it does so at the stream's end, all rows may have been sent.
    """
    into = sql.SQL("COPY {} ({}) FROM STDIN").format(table, joined(map(sql.Identifier, columns)))
    loading = _Loading(work, connection, into, done)
    turn = turn_of(connection, table, columns)
    blocks = archive.rows(entity, work.check)
    return loading.text(blocks) if turn is None else loading.binary(pieces_of(blocks), turn)


class _Loading:
    """One load on its way."""

    def __init__(self, work: Work, connection: Connection, into: sql.Composed, done: int) -> None:
        self._work = work
        self._connection = connection
        self._into = into
        self._done = done

    def text(self, blocks: Iterable[bytes]) -> int:
        with self._connection.cursor() as cursor:
            with cursor.copy(self._into) as copy:
                for block in blocks:
                    write_copy(copy, block)
                    self._count(block)
            return cursor.rowcount

    def binary(self, pieces: Iterable[bytes], turn: Turn) -> int:
        """From the first piece on that cannot be turned, a second COPY takes the text."""
        left = b""
        with ThreadPoolExecutor(1, thread_name_prefix="backup-turner") as helper, self._connection.cursor() as cursor:
            turned = _ahead(helper, turn, pieces)
            with cursor.copy(self._into + sql.SQL(" (FORMAT binary)")) as copy:
                copy.write(HEADER)
                for piece, rows in turned:
                    if rows is None:
                        left = piece
                        break
                    for some in rows:
                        write_copy(copy, some)
                    self._count(piece)
                copy.write(TRAILER)
            copied = cursor.rowcount
            return copied + self.text(chain([left], (piece for piece, _ in turned))) if left else copied

    def _count(self, block: bytes) -> None:
        self._done += block.count(b"\n")
        self._work.progress(rows=self._done)


def _ahead(
    helper: ThreadPoolExecutor, turn: Callable[[bytes], list[bytes] | None], pieces: Iterable[bytes]
) -> Iterator[tuple[bytes, list[bytes] | None]]:
    """Each piece with what it is turned into; the next one is turned meanwhile, on the helper."""
    waiting: tuple[bytes, Future[list[bytes] | None]] | None = None
    for piece in pieces:
        begun = piece, helper.submit(turn, piece)
        if waiting is not None:
            yield waiting[0], waiting[1].result()
        waiting = begun
    if waiting is not None:
        yield waiting[0], waiting[1].result()
