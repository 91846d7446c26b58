"""The file of one plan, inside one platform session.

Three temp tables hold the file: `staged` (typed rows that are or became certain), `doubtful` (text rows that the input
functions must see) and `verdicts` (what is wrong, one row a fault). They are made before the planning transaction,
which is READ ONLY: the server itself then enforces that a preview changes nothing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import psycopg
import pyarrow as pa
import pyarrow.csv as pacsv
from psycopg import sql

from engine.catalog import Entity, Field, ForeignKey
from engine.db.copy import write_copy
from engine.db.platform import Connection
from engine.imports.mapping import Columns
from engine.imports.validate import Judged

STAGED = sql.Identifier("pg_temp", "staged")
DOUBTFUL = sql.Identifier("pg_temp", "doubtful")
VERDICTS = sql.Identifier("pg_temp", "verdicts")
ROW = sql.Identifier("#row")
"""The record's number in `staged` and `doubtful`, beside columns that bear the table's own names."""

_CSV = pacsv.WriteOptions(include_header=False, quoting_style="needed")
"""NULL is written as nothing and '' as two quotes, which is what COPY's CSV takes them for."""


class Staging:
    """Makes the tables and fills them; `rules` judges what is in them."""

    def __init__(self, connection: Connection, entity: Entity, columns: Columns) -> None:
        self.connection = connection
        self.entity = entity
        self.columns = columns
        self.fields = [m.field for m in columns.mapped]

    def create(self) -> None:
        """Makes the temp tables; outside of the read-only transaction."""
        constants = {field.name: value for field, value in self.columns.constants}
        planned = [
            sql.SQL("{} {}{}{}").format(
                sql.Identifier(field.column),
                sql.SQL(field.storage_type),
                sql.SQL(" COLLATE " + field.collation if field.collation else ""),
                sql.SQL(" DEFAULT ") + constants[field.name] if field.name in constants else sql.SQL(""),
            )
            for field in self.columns.planned
        ]
        texts = [sql.SQL("{} text").format(sql.Identifier(f.column)) for f in self.fields]
        row = sql.SQL("{} bigint").format(ROW)
        for table, columns in ((STAGED, [row, *planned]), (DOUBTFUL, [row, *texts])):
            self.run(sql.SQL("CREATE TEMP TABLE {} ({})").format(_bare(table), sql.SQL(", ").join(columns)))
        for reference in self.entity.references:
            if self.in_file(reference):  # a refused parent's children are looked for, parent by parent
                indexed = sql.SQL(", ").join(map(sql.Identifier, reference.columns))
                self.run(sql.SQL("CREATE INDEX ON {} ({})").format(STAGED, indexed))
        self.run(
            sql.SQL(
                "CREATE TEMP TABLE {} (row bigint, severity text, field text, code text, message text, value text)"
            ).format(_bare(VERDICTS))
        )

    def load(self, batches: Iterable[Judged], seen: Callable[[Judged], None]) -> frozenset[str]:
        """Copies judged batches in; returns the names of the fields that anything was doubtful about.

        The proven go straight through one COPY; the others, few in most files, are kept aside in memory-bounded slices
        and copied between, since a session can run one COPY at a time.
        """
        unsure: set[str] = set()
        aside = _Aside(self)
        names = sql.SQL(", ").join([ROW, *(sql.Identifier(f.column) for f in self.fields)])
        proven = iter(batches)
        more = True
        while more:
            with self.copy(STAGED, names) as copy:
                more = False
                for judged in proven:
                    seen(judged)
                    unsure |= judged.unsure
                    aside.keep(judged)
                    if judged.proven.num_rows:
                        write_copy(copy, _as_csv(judged.proven))
                    if aside.full:
                        more = True
                        break
            aside.flush(names)
        for table in (STAGED, DOUBTFUL, VERDICTS):
            self.run(sql.SQL("ANALYZE {}").format(table))
        return frozenset(unsure)

    @property
    def keyed(self) -> bool:
        """Whether the file says each row's key."""
        return bool(self.entity.key) and self.has(self.entity.key)

    def has(self, columns: Iterable[str]) -> bool:
        """Whether the plan has a value of its own for every one of these columns."""
        planned = {f.column for f in self.columns.planned}
        return all(column in planned for column in columns)

    def in_file(self, reference: ForeignKey) -> bool:
        """Whether a row of the file may be what another one refers to."""
        own = (reference.target_schema, reference.target_table) == (self.entity.schema, self.entity.table)
        return own and self.has(reference.target_columns) and self.has(reference.columns)

    def copy(self, table: sql.Composable, names: sql.Composable) -> AbstractContextManager[psycopg.Copy]:
        cursor = self.connection.cursor()
        return cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(table, names))

    def run(self, query: sql.Composed) -> int:
        return self.connection.execute(query).rowcount


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

    def flush(self, names: sql.Composable) -> None:
        verdict_names = sql.SQL("row, severity, field, code, message, value")
        for table, columns, batches in ((DOUBTFUL, names, self._doubtful), (VERDICTS, verdict_names, self._verdicts)):
            if batches:
                with self._staging.copy(table, columns) as copy:
                    for batch in batches:
                        write_copy(copy, _as_csv(batch))
            batches.clear()
        self._bytes = 0


def _as_csv(batch: pa.RecordBatch) -> bytes:
    out = io.BytesIO()
    pacsv.write_csv(batch, out, _CSV)
    return out.getvalue()


def _bare(table: sql.Identifier) -> sql.Identifier:
    return sql.Identifier(table._obj[-1])


def equal(fields: Iterable[Field], left: tuple[str, ...] = (), *, nulls_distinct: bool = True) -> sql.Composable:
    """`t` equals `s` in these fields, as a unique index sees it; `left` are the columns of `t` where they differ."""
    fields = list(fields)
    parts = []
    for field, other in zip(fields, left or tuple(f.column for f in fields), strict=True):
        mine, theirs = (
            sql.SQL("s.{}").format(sql.Identifier(field.column)),
            sql.SQL("t.{}").format(sql.Identifier(other)),
        )
        part = sql.SQL("{} {} {}").format(theirs, sql.SQL(field.equality), mine)
        if not nulls_distinct:
            part = sql.SQL("({} OR ({} IS NULL AND {} IS NULL))").format(part, theirs, mine)
        parts.append(part)
    return sql.SQL(" AND ").join(parts)
