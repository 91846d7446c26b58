"""The rows of a table as a backup reads them: each with its fingerprint, and all of them counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from engine.catalog import Entity
from engine.db.platform import Connection, one_row
from engine.imports.fingerprints import whole_fingerprint
from engine.imports.sqltext import listed

PRINT = slice(3, 19)
"""Of a line of `copy_of`: the hexadecimal digits of the row's fingerprint, behind the two backslashes and the x of
COPY's bytea."""
ROW = 20
"""Of a line: where the row itself begins, behind the fingerprint and a TAB."""


@dataclass
class Sums:
    """Of some rows: how many, their bytes as COPY text, and the sum of their fingerprints."""

    rows: int = 0
    bytes: int = 0
    fingerprint: int = 0


def copy_of(entity: Entity, seed: int) -> sql.Composed:
    """Rows in key order, each behind its fingerprint: `int8send` gives it as bytes, whose text has a fixed length."""
    names = [field.column for field in entity.stored]
    return sql.SQL("COPY (SELECT int8send({}), {} FROM {} t{}) TO STDOUT").format(
        whole_fingerprint("t", seed),
        listed("t", names),
        _of(entity.relation, names),
        sql.SQL(" ORDER BY ") + listed("t", entity.key) if key_places(entity) else sql.SQL(""),
    )


def key_places(entity: Entity) -> list[int]:
    """Places of the key's columns in a line; empty without a key, and where a generated column, which is in no line, is
    one of them."""
    names = [field.column for field in entity.stored]
    return [names.index(column) for column in entity.key] if set(entity.key) <= set(names) else []


def lines_of(entity: Entity, condition: sql.Composable | None = None) -> sql.Composed:
    """The same rows without fingerprints, as the table has them; of those that meet the condition on `r`."""
    names = [field.column for field in entity.stored]
    return sql.SQL("COPY (SELECT {} FROM {} r{}) TO STDOUT").format(
        listed("r", names), entity.relation, sql.SQL(" WHERE ") + condition if condition is not None else sql.SQL("")
    )


def counted(connection: Connection, relation: sql.Composable, columns: Iterable[str], seed: int) -> tuple[int, int]:
    """The number of rows of `relation`, and the sum of the fingerprints of these columns."""
    rows, total = one_row(
        connection,
        sql.SQL("SELECT count(*), coalesce(sum({}), 0) FROM {} t").format(
            whole_fingerprint("t", seed), _of(relation, columns)
        ),
    )
    return int(rows), int(total)


def count_stored(connection: Connection, entity: Entity, seed: int) -> tuple[int, int]:
    """The same of what a backup of the entity holds."""
    return counted(connection, entity.relation, [f.column for f in entity.stored], seed)


def read_by_no_index(connection: Connection) -> None:
    """In this transaction tables are read as they lie and sorted then. An index that lacks rows loses none so, and of a
    key without order, as a random UUID is, it is faster too: 1,000,000 users 1.7 s, by the index 2.6 s."""
    plans = {"indexscan": "off", "indexonlyscan": "off", "bitmapscan": "off", "seqscan": "on", "sort": "on"}
    for plan, value in plans.items():  # a role may have its own; where all are off, the cheapest is taken after all
        connection.execute(sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(f"enable_{plan}"), sql.SQL(value)))


def _of(relation: sql.Composable, columns: Iterable[str]) -> sql.Composed:
    return sql.SQL("(SELECT {} FROM {} r)").format(listed("r", columns), relation)
