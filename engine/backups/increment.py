"""What has changed of an entity since a parent: found, written, and proven. `docs/archive-format.md`, section 6."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from operator import itemgetter

import psycopg
from psycopg import sql

from engine.backups.archive import Archive
from engine.backups.cut import Seen, candidate, heaps_of, since
from engine.backups.known import Known, passes_for
from engine.backups.lines import encoded_positions, numbered_lines
from engine.backups.manifest import BackedEntity, Delta, Proof, columns_of
from engine.backups.rows import Sums, count_stored, counted, key_positions, lines_of
from engine.backups.segments import SegmentWriter
from engine.backups.staging import make_table
from engine.backups.work import Work
from engine.catalog import Entity
from engine.db.copy import CopyOut, write_copy
from engine.db.platform import Connection, one_row
from engine.errors import DataLoss
from engine.imports.refusals import is_refusal
from engine.imports.sqltext import Temp

MOST_CANDIDATES = 50_000
"""They are held in memory while the parent's rows pass by; more, or a tenth of all, are compared by content."""

MOST_CANDIDATE_BYTES = 32 << 20
"""Of their lines, for the same reason: rows may be as large as 1 GB."""

GATHERED = 1 << 20
"""Bytes of lines that are written together."""

NOTHING = hashlib.sha256().hexdigest()


class NoIncrement(Exception):
    """Why a full backup must be made instead; for people."""


@dataclass
class Change:
    """What was found of one entity."""

    proof: Proof
    now: Sums
    """All its rows."""
    added: Sums = field(default_factory=Sums)
    gone: Sums = field(default_factory=Sums)
    sha256: str = NOTHING
    """Of its own stream."""
    gone_sha256: str = NOTHING

    @property
    def delta(self) -> Delta:
        return Delta(self.added.rows, self.gone.rows, self.gone_sha256, self.proof.value)


class Comparing:
    """Compares entities in one moment with a parent. The connection is in the moment; the change goes to the writer."""

    def __init__(
        self,
        work: Work,
        connection: Connection,
        parent: Archive,
        writer: SegmentWriter,
        now: Seen | None,
        *,
        quick: bool = False,
    ) -> None:
        """Args:
        now: what was seen of the moment; without it nothing is concluded from candidates.
        quick: nothing is compared by content, which takes longer than a full backup where something changed.
        """
        self._work = work
        self._connection = connection
        self._parent = parent
        self._writer = writer
        self._seed = parent.manifest.seed
        self._since = since(now, parent.manifest.cut)
        self._quick = quick

    def changed(self, entity: Entity, number: int) -> Change:
        """What has changed, written as the entity's streams.

        Raises:
            NoIncrement: the sums do not agree, a column's type is locked, or it would not be quick.
            DataLoss: what reading the parent raises.
            PlatformNotPrepared: PLATFORM_NOT_PREPARED where rows changed and no temp table can be made.
        """
        before = parent_of(self._parent, entity)
        change = self._by_candidates(entity, before, number)
        if change is None and self._quick:
            raise NoIncrement(f"{entity.name}: candidates do not tell what has changed")
        change = change or self._by_content(entity, before, number)
        if _after(before, change) != change.now:
            raise NoIncrement(f"{entity.name}: what was found to have changed does not add up")
        return change

    # --- by candidates

    def _by_candidates(self, entity: Entity, before: BackedEntity, number: int) -> Change | None:
        """None where nothing can be concluded from them."""
        if self._since is None or not before.heaps or heaps_of(self._connection, entity) != before.heaps:
            return None
        condition = candidate(self._since)
        rows, candidates = one_row(
            self._connection,
            sql.SQL("SELECT count(*), count(*) FILTER (WHERE {}) FROM {} r").format(condition, entity.relation),
        )
        change = Change(Proof.CANDIDATES, _sums_of(before))
        if not candidates:
            return change if rows == before.rows else None
        key = key_positions(entity)
        if not key or candidates > min(MOST_CANDIDATES, before.rows // 10 + 100):
            return None
        of_line = _key_reader(key)
        wanted = self._candidates(entity, condition, of_line)
        if wanted is None:
            return None
        gone, replaced = array("q"), 0
        with _Summing(self._work, entity, self._seed) as sums:
            for at, lines in self._lines_of(before):
                for place, line in enumerate(lines):
                    now = wanted.get(of_line(line))
                    if now is None:
                        continue
                    replaced += 1
                    if now == line:
                        del wanted[of_line(line)]
                    else:
                        gone.append(at + place)
                        sums.gone([line])
            if rows - candidates + replaced != before.rows:
                return None
            self._write(change, number, [list(wanted.values())], gone, sums)
        change.now = _after(before, change)
        change.now.rows = rows  # counted, and compared with the sum
        return change

    def _candidates(
        self, entity: Entity, condition: sql.Composed, of_line: Callable[[bytes], object]
    ) -> dict[object, bytes] | None:
        """Their lines by key; None where they are too large to be held."""
        found: dict[object, bytes] = {}
        size = 0
        for lines in CopyOut(self._connection, lines_of(entity, condition)):
            size += sum(map(len, lines))
            if size <= MOST_CANDIDATE_BYTES:  # the rest is read and dropped: a COPY that is left breaks its session
                found |= {of_line(line): line for line in lines}
        return found if size <= MOST_CANDIDATE_BYTES else None

    # --- by content

    def _by_content(self, entity: Entity, before: BackedEntity, number: int) -> Change:
        rows, total = count_stored(self._connection, entity, self._seed)
        change = Change(Proof.CONTENT, Sums(rows, before.bytes, total))
        if change.now == _sums_of(before):
            return change
        gone = array("q")
        with _Summing(self._work, entity, self._seed) as sums:
            self._write(change, number, self._added(entity, before, rows, gone, sums.gone), gone, sums)
        if not rows:
            change.gone = _sums_of(before)
        change.now.bytes = _after(before, change).bytes  # the server counts no bytes of text
        return change

    def _added(
        self,
        entity: Entity,
        before: BackedEntity,
        rows: int,
        gone: array[int],
        lost: Callable[[Sequence[bytes]], None],
    ) -> Iterator[list[bytes]]:
        """The lines that the parent lacks. The positions of those of it that are not there any more go to `gone`, and
        the lines to `lost`, but where all are, as after a TRUNCATE."""
        if not rows:
            gone.extend(range(before.rows))
            return
        passes = passes_for(before.rows)
        for number in range(passes):
            known = Known((lines for _, lines in self._lines_of(before)), number, passes)
            for lines in CopyOut(self._connection, lines_of(entity)):
                self._work.check()
                yield known.take(lines)
            if not known.left:
                continue
            for at, lines in self._lines_of(before):
                places = list(known.leftover(lines))
                gone.extend(at + place for place in places)
                lost([lines[place] for place in places])
        if passes > 1:
            gone[:] = array("q", sorted(gone))

    # --- both

    def _lines_of(self, before: BackedEntity) -> Iterator[tuple[int, list[bytes]]]:
        return numbered_lines(self._parent.rows(before, self._work.check))

    def _write(
        self, change: Change, number: int, added: Iterable[list[bytes]], gone: array[int], sums: _Summing
    ) -> None:
        """The two streams; `gone` is complete when `added` is."""
        stream = self._writer.stream(str(number))
        for lines in added:
            stream.write(b"".join(lines))
            sums.added(lines)
        change.sha256 = stream.end()
        stream = self._writer.stream(f"{number}.gone")
        for some in encoded_positions(gone):
            stream.write(some)
        change.gone_sha256 = stream.end()
        change.added, change.gone = sums.sums()


class _Summing:
    """Reads lines into temp tables of their types, in a session of its own, and sums them there: what is stored is read
    back as rows, and their fingerprints are the server's. The session begins with the first line."""

    def __init__(self, work: Work, entity: Entity, seed: int) -> None:
        self._work, self._entity, self._seed = work, entity, seed
        self._stack = ExitStack()
        self._connection: Connection | None = None
        self._sides = (_Side(Temp("added")), _Side(Temp("gone")))

    def __enter__(self) -> _Summing:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def added(self, lines: Sequence[bytes]) -> None:
        self._put(self._sides[0], lines)

    def gone(self, lines: Sequence[bytes]) -> None:
        self._put(self._sides[1], lines)

    def sums(self) -> tuple[Sums, Sums]:
        """Of the added rows and of the gone ones.

        Raises:
            NoIncrement, DataLoss: BACKUP_INCOMPLETE.
        """
        for side in self._sides:
            if not side.found.rows:
                continue
            self._flush(side)
            if side.unread:
                raise NoIncrement(f"{self._entity.name}: a value that its type does not read any more")
            rows, side.found.fingerprint = counted(self._open(), side.table, columns_of(self._entity), self._seed)
            if rows != side.found.rows:
                raise DataLoss(
                    f"{self._entity.name}: found {rows} rows in {side.found.rows} lines", reason="BACKUP_INCOMPLETE"
                )
        return self._sides[0].found, self._sides[1].found

    def _put(self, side: _Side, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        data = b"".join(lines)
        side.waiting += data
        side.found.rows += len(lines)
        side.found.bytes += len(data)
        if len(side.waiting) >= GATHERED:
            self._flush(side)

    def _flush(self, side: _Side) -> None:
        connection = self._open()
        try:
            with connection.cursor() as cursor, cursor.copy(sql.SQL("COPY {} FROM STDIN").format(side.table)) as copy:
                write_copy(copy, bytes(side.waiting))
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            side.unread = True  # told at the end: now the table may be on its way through another COPY
        side.waiting.clear()

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._stack.enter_context(self._work.platform("backup, proving", autocommit=True))
            try:
                for side in self._sides:
                    make_table(self._connection, side.table, columns_of(self._entity))
            except psycopg.errors.LockNotAvailable:  # a type is a table's own, which a restore has locked
                raise NoIncrement(f"{self._entity.name}: a type of it cannot be looked at now") from None
        return self._connection


@dataclass
class _Side:
    """Lines of one kind on their way into their temp table."""

    table: Temp
    waiting: bytearray = field(default_factory=bytearray)
    found: Sums = field(default_factory=Sums)
    unread: bool = False


def parent_of(parent: Archive, entity: Entity) -> BackedEntity:
    """The entity as the parent has it.

    Raises:
        NoIncrement: it has none, or one of another definition.
    """
    before = parent.manifest.of_table(entity.schema, entity.table)
    if before is None:
        raise NoIncrement(f"{entity.name}: the backup before has none of it")
    if (before.schema_fingerprint, before.columns) != (entity.definition, columns_of(entity)):
        raise NoIncrement(f"{entity.name}: its definition is another than in the backup before")
    return before


def _sums_of(before: BackedEntity) -> Sums:
    return Sums(before.rows, before.bytes, before.fingerprint)


def _after(before: BackedEntity, change: Change) -> Sums:
    """What the entity must be after the change: the parent's sums, without those of the gone and with the added."""
    gone, added = change.gone, change.added
    return Sums(
        before.rows - gone.rows + added.rows,
        before.bytes - gone.bytes + added.bytes,
        before.fingerprint - gone.fingerprint + added.fingerprint,
    )


def _key_reader(places: Sequence[int]) -> Callable[[bytes], object]:
    """Gives the key of a line as COPY wrote it, which is one text for one value."""
    if list(places) == [0]:
        return lambda line: line.partition(b"\t")[0].rstrip(b"\n")
    last, pick = max(places) + 1, itemgetter(*places)
    return lambda line: pick(line.rstrip(b"\n").split(b"\t", last))
