"""Filling the temp tables of one entity from judged batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain

import psycopg
import pyarrow as pa
from psycopg import sql

from engine.db.copy import write_copy
from engine.formats.ahead import ahead
from engine.imports.early import Early
from engine.imports.encode import BinaryForm, CsvForm, form_of
from engine.imports.sqltext import ROW, joined
from engine.imports.staging import Doubtful, Staging, staged_name
from engine.imports.validate import Judged

CSV = CsvForm()


def fill(
    staging: Staging, batches: Iterable[Judged], seen: Callable[[Judged], None], early: Early | None = None
) -> frozenset[str]:
    """Copies judged batches in; returns the names of the fields that anything was doubtful about.

    They are read, judged and encoded on a thread of its own while those before are on their way. The proven go straight
    through one COPY; the others, few in most files, are kept aside in memory-bounded slices and copied between, since a
    session can run one COPY at a time.

    Raises:
        Doubtful: with `early`, when too many records are.
    """
    unsure: set[str] = set()
    aside, form = _Aside(staging), early or _form(staging)
    held = {f.column for f in staging.held}
    names = joined([ROW, *(staged_name(m) for m in staging.columns.mapped if m.field.column in held)])
    with closing(ahead((judged, form.encode(judged.proven)) for judged in batches)) as encoded:
        more = True
        while more:
            with _copy(staging, staging.staged, names, form) as copy:
                more = False
                for judged, rows in encoded:
                    if early is not None and early.is_hopeless_with(judged.undecided):
                        break
                    seen(judged)
                    unsure |= judged.unsure
                    aside.keep(judged)
                    for piece in rows:
                        write_copy(copy, piece)
                    if aside.full:
                        more = True
                        break
            if early is not None and early.hopeless:
                raise Doubtful
            aside.flush()
    if not staging.narrowed:  # else it is told when it is needed
        staging.analyze()
    for table in (staging.doubtful, staging.verdicts):
        staging.run(sql.SQL("ANALYZE {}").format(table))
    return frozenset(unsure)


def _form(staging: Staging) -> BinaryForm | CsvForm:
    entity, columns = staging.entity, staging.columns
    others = [*(field for field, _ in columns.constants), *(entity.column(c) for c in staging.filled)]
    others += [m.field for m in columns.mapped]
    if not all(field.receives for field in others):  # COPY asks for every column of its table
        return CSV
    return form_of([m.read_as for m in columns.mapped])


@contextmanager
def _copy(
    staging: Staging, table: sql.Composable, names: sql.Composable, form: BinaryForm | CsvForm | Early
) -> Iterator[psycopg.Copy]:
    statement = sql.SQL("COPY {} ({}) FROM STDIN ({})").format(table, names, sql.SQL(form.options))
    with staging.connection.cursor() as cursor, cursor.copy(statement) as copy:
        write_copy(copy, form.begin())
        yield copy
        write_copy(copy, form.end())


class _Aside:
    """Doubtful rows and verdicts that wait until the session's COPY of proven rows may be interrupted."""

    LIMIT = 8 << 20

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._doubtful: list[pa.RecordBatch] = []
        self._verdicts: list[pa.RecordBatch] = []
        self._bytes = 0

    def keep(self, judged: Judged) -> None:
        for kept, batch in ((self._doubtful, judged.doubtful), (self._verdicts, judged.verdicts)):
            if batch.num_rows:
                kept.append(batch)
                self._bytes += batch.nbytes

    @property
    def full(self) -> bool:
        return self._bytes > self.LIMIT

    def flush(self) -> None:
        staging, verdict = self._staging, sql.SQL("row, severity, field, code, message, value")
        names = joined([ROW, *map(staged_name, staging.columns.mapped)])
        tables = ((staging.doubtful, names, self._doubtful), (staging.verdicts, verdict, self._verdicts))
        for table, columns, batches in tables:
            if batches:
                with _copy(staging, table, columns, CSV) as copy:
                    for piece in chain.from_iterable(map(CSV.encode, batches)):
                        write_copy(copy, piece)
        staging.faulty = staging.faulty or bool(self._verdicts)
        for _, _, batches in tables:
            batches.clear()
        self._bytes = 0
