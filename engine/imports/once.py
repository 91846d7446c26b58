"""Unique values that stand once in the file, or in the file and the table together, as in most files all do.

Equal values have equal hashes, so hashes that all stand once tell it without a join, in one look at all unique keys:
for 1,000,000 new users beside 1,000,000 in the table in 0.9 s of the server's, where a join for each of two keys and a
look at what the file repeats take 2.3 s. A join waits for memory: its hash table is larger than any processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from engine.catalog import Field
from engine.db.platform import one_row
from engine.imports.sqltext import all_of, equal, joined
from engine.imports.staging import Staging

LOOKED_UP = 100
"""Rows of the file that are looked up first: one that the table has foretells others, which only joins can name."""

MOST_OF_TABLE = 2
"""Rows of the table to one of the file. Beyond it, sorting all of them costs more than asking each."""

SMALL_TABLE = 10_000
"""Rows of a table that is sorted for any file. The server guesses thousands of one that it has not looked at yet."""

_NUMBERS = frozenset({"int2", "int4", "int8", "date", "timestamp", "timestamptz"})
"""Types whose values are sorted as numbers themselves."""

_HASHES = {"uuid": "uuid_hash_extended", "text": "hashtextextended", "varchar": "hashtextextended"}
"""Hash functions of types, which take half the time of a record's with the same value."""


@dataclass(frozen=True)
class Value:
    """Columns whose values, together, may stand once; and which rows `s` of the file that concerns."""

    fields: tuple[Field, ...]
    nulls_distinct: bool = True
    applies: sql.Composable | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f.column for f in self.fields)

    def counted(self, alias: str = "s") -> sql.Composed:
        """The row is one that it concerns."""
        present = joined((sql.SQL("{} IS NOT NULL").format(v) for v in self._values(alias)), " AND ")
        return all_of(present if self.nulls_distinct else None, self.applies if alias == "s" else None)

    def number(self, alias: str = "s") -> sql.Composable:
        """What is equal where the values are; NULL where it does not concern the row."""
        values = self._values(alias)
        if len(self.fields) == 1 and self.nulls_distinct and self.applies is None:
            if self.fields[0].base in _NUMBERS:
                return values[0]
            if function := _HASHES.get(self.fields[0].base):
                return sql.SQL("{}({}, 0)").format(sql.SQL(function), values[0])
        return sql.SQL("CASE WHEN {} THEN hash_record_extended(ROW({}), 0) END").format(
            self.counted(alias), joined(values)
        )

    def _values(self, alias: str) -> list[sql.Composed]:
        """Without the domains that the table's columns may have, and the file's have not."""
        return [
            sql.SQL("{}.{}::{}").format(sql.SQL(alias), sql.Identifier(f.column), sql.SQL(f.storage_type))
            for f in self.fields
        ]


def that_repeat(staging: Staging, values: Sequence[Value], *, table: bool = False) -> list[bool]:
    """Of each whether some may stand twice, in the good rows of the file or, with `table`, in those and the table's.

    True where a type has no hash. With its DISTINCT sorted beforehand, which PostgreSQL 16 began to prefer, the query
    would sort rows of its numbers instead of the numbers: 0.3 s more for each 1,000,000.
    """
    sources = [sql.SQL("SELECT {} FROM {} s WHERE {}").format(_numbers(values, "s"), staging.staged, staging.good())]
    if table:
        sources.append(sql.SQL("SELECT {} FROM {} t").format(_numbers(values, "t"), staging.entity.relation))
    repeat = joined(
        sql.SQL("count({0}) > count(DISTINCT {0})").format(sql.Identifier(f"#h{n}")) for n in range(len(values))
    )
    query = sql.SQL("SELECT ARRAY[{}] FROM ({}) h").format(repeat, joined(sources, " UNION ALL "))
    try:
        with staging.connection.transaction():
            staging.connection.execute("SET LOCAL enable_presorted_aggregate = off")
            (found,) = one_row(staging.connection, query)
            staging.connection.execute("SET LOCAL enable_presorted_aggregate TO DEFAULT")
    except psycopg.errors.UndefinedFunction:  # of a type that has no hash
        return [True] * len(values)
    return list(found)


def stand_once(staging: Staging) -> frozenset[tuple[tuple[str, ...], bool]]:
    """The unique keys, as columns and whether NULLs are distinct, of which no good row's value stands anywhere else.

    Only where that is likely, and the table not much larger than the file: none, without a look, where it is not.
    """
    values = [Value(tuple(staging.key_fields))] if staging.keyed else []
    for key in staging.other_keys:
        if staging.has(key.columns):
            values.append(Value(tuple(staging.entity.column(c) for c in key.columns), key.nulls_distinct))
    if not values or _many(staging) or _some_stand(staging, values):
        return frozenset()
    repeat = that_repeat(staging, values, table=True)
    return frozenset(
        (value.columns, value.nulls_distinct) for value, twice in zip(values, repeat, strict=True) if not twice
    )


def _numbers(values: Sequence[Value], alias: str) -> sql.Composed:
    return joined(
        sql.SQL("{} AS {}").format(value.number(alias), sql.Identifier(f"#h{n}")) for n, value in enumerate(values)
    )


def _many(staging: Staging) -> bool:
    """The table has many more rows than the file, as the server guesses by their sizes."""
    table, file = (_guessed(staging, relation) for relation in (staging.entity.relation, staging.staged))
    return table > max(MOST_OF_TABLE * file, SMALL_TABLE)


def _guessed(staging: Staging, relation: sql.Composable) -> int:
    query = sql.SQL("EXPLAIN (FORMAT JSON) SELECT FROM {}").format(relation)
    return int(one_row(staging.connection, query)[0][0]["Plan"]["Plan Rows"])


def _some_stand(staging: Staging, values: Sequence[Value]) -> bool:
    """The table has a value of the file's first rows."""
    found = joined(
        (
            sql.SQL("EXISTS (SELECT FROM (SELECT * FROM {} LIMIT {}) s JOIN {} t ON {})").format(
                staging.staged, sql.Literal(LOOKED_UP), staging.entity.relation, equal(value.fields)
            )
            for value in values
        ),
        " OR ",
    )
    return bool(one_row(staging.connection, sql.SQL("SELECT {}").format(found))[0])
