"""The rows of a table as a backup reads them: each with a mark, and all of them counted, with their fingerprints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from engine.backups.manifest import BackedEntity, Column, columns_of
from engine.catalog import Entity
from engine.db.platform import Connection, one_row
from engine.errors import DataLoss
from engine.imports.sqltext import listed

MARK = slice(3, 19)
"""Of a line of `copy_of`: the hexadecimal digits of the row's mark, behind the two backslashes and the x of COPY's
bytea."""
ROW = 20
"""Of a line: where the row itself begins, behind the mark and a TAB."""

_PLACE = sql.SQL("hashtidextended(r.ctid, r.tableoid::bigint)")
"""Where in which table a row version stands. While a lock keeps the table from being rewritten, that is which version
it is, for who sees the same snapshot. Of 1,000,000 users it costs 0.1 s, where their fingerprints cost 0.9 s."""

_HASHES = (
    (re.compile(r"text|character varying(\(\d+\))?"), 'hashtextextended({} COLLATE "C", {})'),
    (re.compile(r"uuid"), "uuid_hash_extended({}, {})"),
    (re.compile(r"smallint|integer|bigint"), "hashint8extended({}, {})"),
    (re.compile(r"timestamp(\(\d\))? without time zone"), "timestamp_hash_extended({}, {})"),
    (re.compile(r"timestamp(\(\d\))? with time zone"), "timestamptz_hash_extended({}, {})"),
)
"""Types whose own hash tells any two values apart that differ at all, unlike that of numeric (1.0 and 1.00), of floats
(0 and -0) or of jsonb, and is the same in every database, unlike that of an enum."""


@dataclass
class Sums:
    """Of some rows: how many, their bytes as COPY text, and the sum of their fingerprints."""

    rows: int = 0
    bytes: int = 0
    fingerprint: int = 0


@dataclass(frozen=True)
class Counted:
    """What the second reading found of a table: rows, the sum of their fingerprints, the sum of their places."""

    rows: int
    fingerprint: int
    places: int


@dataclass(frozen=True)
class Streamed:
    """An entity's rows as the first reading found them; their fingerprint is still to be counted."""

    backed: BackedEntity
    by_place: bool
    """Whether their marks are the places where they stood, else their fingerprints."""
    marks: int
    """The sum of the marks."""


def copy_of(entity: Entity, seed: int, *, by_place: bool) -> sql.Composed:
    """Rows as they lie in the table, each behind a mark that the second reading sums too: the place where it stands, or
    its fingerprint. `int8send` gives either as bytes, whose text has one length."""
    names = listed("r", [field.column for field in entity.stored])
    if by_place:
        return sql.SQL("COPY (SELECT int8send({}), {} FROM {} r) TO STDOUT").format(_PLACE, names, entity.relation)
    return sql.SQL("COPY (SELECT int8send({}), {} FROM {} r) TO STDOUT").format(
        fingerprint_of(columns_of(entity), seed), names, entity.relation
    )


def key_positions(entity: Entity) -> list[int]:
    """Places of the key's columns in a line; empty without a key, and where a generated column, which is in no line, is
    one of them."""
    names = [field.column for field in entity.stored]
    return [names.index(column) for column in entity.key] if set(entity.key) <= set(names) else []


def lines_of(entity: Entity, condition: sql.Composable | None = None) -> sql.Composed:
    """The same rows without marks; of those that meet the condition on `r`."""
    names = [field.column for field in entity.stored]
    return sql.SQL("COPY (SELECT {} FROM {} r{}) TO STDOUT").format(
        listed("r", names), entity.relation, sql.SQL(" WHERE ") + condition if condition is not None else sql.SQL("")
    )


def counted(connection: Connection, relation: sql.Composable, columns: Iterable[Column], seed: int) -> tuple[int, int]:
    """The number of rows of `relation`, and the sum of the fingerprints of these columns."""
    rows, total = one_row(
        connection,
        sql.SQL("SELECT count(*), coalesce(sum({}), 0) FROM {} r").format(fingerprint_of(columns, seed), relation),
    )
    return int(rows), int(total)


def count_stored(connection: Connection, entity: Entity, seed: int) -> tuple[int, int]:
    """The same of what a backup of the entity holds."""
    return counted(connection, entity.relation, columns_of(entity), seed)


def count_read(connection: Connection, entity: Entity, seed: int) -> Counted:
    """The same, and the sum of the rows' places, for who has read them by `copy_of`."""
    query = sql.SQL("SELECT count(*), coalesce(sum({}), 0), coalesce(sum({}), 0) FROM {} r").format(
        fingerprint_of(columns_of(entity), seed), _PLACE, entity.relation
    )
    return Counted(*map(int, one_row(connection, query)))


def read_by_no_index(connection: Connection) -> None:
    """In this transaction tables are read as they lie: an index that lacks rows loses none so."""
    plans = {"indexscan": "off", "indexonlyscan": "off", "bitmapscan": "off", "seqscan": "on"}
    for plan, value in plans.items():  # a role may have its own; where all are off, the cheapest is taken after all
        connection.execute(sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(f"enable_{plan}"), sql.SQL(value)))


def fingerprint_of(columns: Iterable[Column], seed: int) -> sql.Composed:
    """The fingerprint, a bigint, of these columns of the row `r`: the hash of all their hashes.

    Each column has a seed of its own, which stands for NULL too, so that no value can be taken for another's. Of
    1,000,000 users it takes 0.9 s; a hash of the whole row's text took 1.8 s.
    """
    hashes = [_hash_of(column, (seed + place) % (1 << 63)) for place, column in enumerate(columns)]
    return sql.SQL("hashint8extended({}, {})").format(
        sql.SQL(" # ").join(hashes) if hashes else sql.Literal(0), sql.Literal(seed)
    )


def _hash_of(column: Column, seed: int) -> sql.Composed:
    value, own = sql.SQL("r.{}").format(sql.Identifier(column.name)), sql.Literal(seed)
    for types, function in _HASHES:
        if types.fullmatch(column.storage_type):
            return sql.SQL("coalesce({}, {})").format(sql.SQL(function).format(value, own), own)
    # what the type's output function gives: see `engine.exports.values.output_text`
    return sql.SQL(
        'CASE WHEN num_nulls({0}) = 0 THEN hashtextextended(concat({0}) COLLATE "C", {1}) ELSE {1} END'
    ).format(value, own)


def proven(streams: Sequence[Streamed], counts: Sequence[Counted]) -> list[BackedEntity]:
    """The entities with the fingerprints of their rows, if those are the ones that were counted: as many, with the same
    marks.

    Raises:
        DataLoss: BACKUP_INCOMPLETE.
    """
    found = []
    for stream, second in zip(streams, counts, strict=True):
        backed = stream.backed
        marks = second.places if stream.by_place else second.fingerprint
        if (backed.rows, stream.marks) != (second.rows, marks):
            raise DataLoss(
                f"{backed.entity}: found {backed.rows} rows in the stream, {second.rows} in the snapshot, with"
                f" {'the same' if stream.marks == marks else 'other'} marks",
                reason="BACKUP_INCOMPLETE",
                metadata={"entity": backed.entity},
            )
        found.append(replace(backed, fingerprint=second.fingerprint))
    return found
