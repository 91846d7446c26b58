"""One entity of a backup, staged, against its live rows: what is only here, only there, and different."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql

from engine.backups.manifest import BackedEntity, Column
from engine.catalog import Entity, Field
from engine.db.copy import CopyOut
from engine.db.platform import Connection, one_number, one_row
from engine.errors import InternalError, InvalidRequest
from engine.imports import planfile
from engine.imports.fingerprints import fingerprint
from engine.imports.sqltext import Temp, all_of, joined, listed

MOST_TOUCHED = 800
"""Columns of one line of differences: they stand in it twice, and a SELECT has 1,664 at the most."""


@dataclass(frozen=True)
class Compared:
    """One entity: its rows in the backup are only_in_backup + different + equal, live only_live + different + equal."""

    entity: str
    only_in_backup: int
    only_live: int
    different: int
    equal: int
    streams: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Their entries in the head, by name; none where rows have no key to be told apart by."""
    head: dict[str, Any] = field(default_factory=dict)
    """The entity's entry in the head."""

    def as_record(self) -> dict[str, Any]:
        """What people are shown."""
        names = ("entity", "only_in_backup", "only_live", "different", "equal")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Pair:
    """A column of the backup and the live field that has its values."""

    backed: Column
    live: Field


def pairs_of(live: Entity, backed: BackedEntity, renames: Mapping[str, str]) -> list[Pair]:
    """The columns that both have, in the live order; `renames` says what a column of the backup is called now, and
    nothing for one that is gone.

    Raises:
        InvalidRequest: OPTION_INVALID when two columns of the backup are to become one.
    """
    found: dict[str, Column] = {}
    for column in backed.columns:
        name = renames.get(column.name, column.name)
        if not name:
            continue
        if name in found:
            raise InvalidRequest(
                f"renames: {live.name}: found {found[name].name} and {column.name} of the backup for the column {name},"
                " expected one",
                reason="OPTION_INVALID",
            )
        found[name] = column
    return [Pair(found[f.column], f) for f in live.stored if f.column in found]


def compare(
    connection: Connection,
    live: Entity,
    backed: BackedEntity,
    table: Temp,
    renames: Mapping[str, str],
    number: int,
    sink: planfile.PartSink,
    seed: int,
) -> Compared:
    """The live rows, as this connection's transaction sees them, against the staged ones.

    Values are the same if their texts are, as fingerprints have it: 1.0 is not 1.00. Streams `<number>.INSERT` (rows
    only in the backup), `<number>.UPDATE` (new: the backup's values, old: those of now) and `<number>.DELETE` (only
    live), in key order. Where rows have no key, or another one than then, whole rows are counted without streams.

    Raises:
        InvalidRequest: OPTION_INVALID; InternalError: DIFFERENCES_SUM.
    """
    pairs = pairs_of(live, backed, renames)
    key = _key(live, backed, renames, pairs)
    if key:
        return _ByKey(connection, live, backed, table, pairs, key, number, seed).compare(sink)
    return _whole_rows(connection, live, backed, table, pairs, seed)


def _key(live: Entity, backed: BackedEntity, renames: Mapping[str, str], pairs: Sequence[Pair]) -> tuple[str, ...]:
    """The key that tells rows apart in both, in the live order of its columns; empty where there is none."""
    then = {renames.get(c, c) for c in backed.key}
    if not then or not then <= {p.live.column for p in pairs}:
        return ()
    keys = [live.key, *(k.columns for k in live.unique if k.usable)]
    return next((key for key in keys if set(key) == then), ())


def _head(
    live: Entity, backed: BackedEntity, renames: Mapping[str, str], key: Sequence[str], touched: Sequence[str]
) -> dict[str, Any]:
    secret = {renames.get(c.name, c.name) for c in backed.columns if c.secret}
    secret |= {f.column for f in live.fields if f.secret}
    return {
        "name": live.name,
        "catalog": live.fingerprint,
        "key": list(key),
        "planned": list(touched),
        "touched": list(touched),
        "relied": list(touched),
        "stored": [f.column for f in live.stored],
        "secret": sorted(secret),
    }


def _whole_rows(
    connection: Connection, live: Entity, backed: BackedEntity, table: Temp, pairs: Sequence[Pair], seed: int
) -> Compared:
    """Rows as a multiset: how often each stands here and there, by the fingerprint of the columns that both have."""
    sides = sql.SQL("SELECT {}, true FROM {} s UNION ALL SELECT {}, false FROM {} t").format(
        fingerprint("s", [p.backed.name for p in pairs], seed),
        table,
        fingerprint("t", [p.live.column for p in pairs], seed),
        live.relation,
    )
    query = sql.SQL(
        "SELECT coalesce(sum(greatest(b - l, 0)), 0), coalesce(sum(greatest(l - b, 0)), 0),"
        " coalesce(sum(least(b, l)), 0) FROM (SELECT count(*) FILTER (WHERE side) AS b,"
        " count(*) FILTER (WHERE NOT side) AS l FROM ({}) r (print, side) GROUP BY print) g"
    ).format(sides)
    only_in_backup, only_live, equal = map(int, one_row(connection, query))
    if not pairs:  # nothing says that any two rows are the same
        only_in_backup, only_live, equal = only_in_backup + equal, only_live + equal, 0
    renames = {p.backed.name: p.live.column for p in pairs}
    head = _head(live, backed, renames, (), [p.live.column for p in pairs])
    return Compared(live.name, only_in_backup, only_live, 0, equal, head=head)


class _ByKey:
    """Two tables whose rows a key tells apart: `s` is staged, `t` is live."""

    def __init__(
        self,
        connection: Connection,
        live: Entity,
        backed: BackedEntity,
        table: Temp,
        pairs: Sequence[Pair],
        key: Sequence[str],
        number: int,
        seed: int,
    ) -> None:
        self._connection = connection
        self._live = live
        self._backed = backed
        self._table = table
        self._pairs = pairs
        self._number = number
        self._seed = seed
        self._alike = alike_of(connection, pairs)
        by_column = {p.live.column: p for p in pairs}
        self._key = [by_column[c] for c in key]

    def compare(self, sink: planfile.PartSink) -> Compared:
        touched = self._touched()
        streams = {
            "INSERT": self._only_in_backup(),
            "UPDATE": self._different(touched),
            "DELETE": self._only_live(),
        }
        written = {f"{self._number}.{kind}": self._write(sink, kind, query) for kind, query in streams.items()}
        added, changed, gone = (entry["rows"] for entry in written.values())
        equal = self._backed.rows - added - changed
        there = one_number(self._connection, sql.SQL("SELECT count(*) FROM {} t").format(self._live.relation))
        if there != gone + changed + equal or equal < 0:
            raise InternalError(
                f"{self._live.name}: found {there} live rows, {gone + changed + equal} accounted for",
                reason="DIFFERENCES_SUM",
            )
        renames = {p.backed.name: p.live.column for p in self._pairs}
        names = [p.live.column for p in touched]
        head = _head(self._live, self._backed, renames, [p.live.column for p in self._key], names)
        head["planned"] = [p.live.column for p in self._pairs]
        return Compared(self._live.name, added, gone, changed, equal, written, head)

    def _write(self, sink: planfile.PartSink, kind: str, query: sql.Composed) -> dict[str, Any]:
        with planfile.StreamWriter(sink, f"{self._number}.{kind}") as writer:
            for lines in CopyOut(self._connection, sql.SQL("COPY ({}) TO STDOUT").format(query)):
                writer.add(lines)
            return writer.close()

    def _only_in_backup(self) -> sql.Composed:
        return sql.SQL("SELECT 0, {} FROM {} s WHERE NOT EXISTS (SELECT FROM {} t WHERE {}) ORDER BY {}").format(
            listed("s", [p.backed.name for p in self._pairs]),
            self._table,
            self._live.relation,
            same_key(self._key, self._alike),
            joined(_of_backup(p) + _collated(p) for p in self._key),
        )

    def _only_live(self) -> sql.Composed:
        stored = [f.column for f in self._live.stored]
        return sql.SQL("SELECT 0, {}, {} FROM {} t WHERE NOT EXISTS (SELECT FROM {} s WHERE {}) ORDER BY {}").format(
            fingerprint("t", stored, self._seed),
            listed("t", stored),
            self._live.relation,
            self._table,
            same_key(self._key, self._alike),
            joined(map(_of_live, self._key)),
        )

    def _different(self, touched: Sequence[Pair]) -> sql.Composed:
        return sql.SQL("SELECT 0, {}, 0, {}, {} FROM {} ORDER BY {}").format(
            fingerprint("t", [p.live.column for p in touched], self._seed),
            joined(map(_of_backup, touched)),
            joined(map(_of_live, touched)),
            self._rows_that_differ(),
            joined(map(_of_live, self._key)),
        )

    def _rows_that_differ(self) -> sql.Composed:
        """Equal images are equal texts, and cost a tenth; images that differ may still have one text."""
        texts = sql.SQL("{} <> {}").format(
            _text(map(_of_backup, self._pairs)), _text(map(_of_live, self._pairs))
        )  # fmt: skip
        images = None
        if all(p in self._alike for p in self._pairs):
            images = sql.SQL("NOT record_image_eq(ROW({}), ROW({}))").format(
                joined(map(_of_backup, self._pairs)), joined(map(_stored, self._pairs))
            )
        return sql.SQL("{} s JOIN {} t ON {} WHERE {}").format(
            self._table, self._live.relation, same_key(self._key, self._alike), all_of(images, texts)
        )

    def _touched(self) -> Sequence[Pair]:
        """The columns that stand in a line of UPDATE: all, or, where they do not fit into it twice, the key and the
        first of those that differ in any row."""
        if len(self._pairs) <= MOST_TOUCHED:
            return self._pairs
        others = [p for p in self._pairs if p not in self._key]
        moved: list[Pair] = []
        for at in range(0, len(others), MOST_TOUCHED):  # what a join gives has 1,664 columns at the most too
            some = others[at : at + MOST_TOUCHED]
            differ = joined(
                sql.SQL("bool_or({} <> {})").format(_text([_of_backup(p)]), _text([_of_live(p)])) for p in some
            )
            found = one_row(self._connection, sql.SQL("SELECT {} FROM {}").format(differ, self._rows_that_differ()))
            moved += [pair for pair, differs in zip(some, found, strict=True) if differs]
        return [*self._key, *moved[: MOST_TOUCHED - len(self._key)]]


def alike_of(connection: Connection, pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs that have one type on both sides, lengths and precision apart."""
    rows = connection.execute(
        "SELECT to_regtype(b) = to_regtype(l) FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY u (b, l, n)"
        " ORDER BY n",
        ([p.backed.storage_type for p in pairs], [p.live.storage_type for p in pairs]),
    ).fetchall()
    return [pair for pair, (alike,) in zip(pairs, rows, strict=True) if alike]


def same_key(key: Sequence[Pair], alike: Sequence[Pair]) -> sql.Composed:
    """`t`, live, has the key of `s`, staged: by the operator of the live key; where a column has another type now, by
    the texts of its values."""
    return joined((_same(pair, alike) for pair in key), " AND ")


def _same(pair: Pair, alike: Sequence[Pair]) -> sql.Composable:
    mine, theirs = _of_backup(pair), _of_live(pair)
    if pair not in alike:
        return sql.SQL("{} = {}").format(_text([theirs]), _text([mine]))
    return sql.SQL("{} {} {}").format(theirs, sql.SQL(pair.live.equality), mine)


def _of_backup(pair: Pair) -> sql.Composable:
    return sql.SQL("s.") + sql.Identifier(pair.backed.name)


def _of_live(pair: Pair) -> sql.Composable:
    return sql.SQL("t.") + sql.Identifier(pair.live.column)


def _stored(pair: Pair) -> sql.Composable:
    """The live value without its domains, as it is staged."""
    return sql.SQL("{}::{}").format(_of_live(pair), sql.SQL(pair.live.storage_type))


def _collated(pair: Pair) -> sql.Composable:
    """A staged column has its type's collation; in an order the live one's own must be said."""
    return sql.SQL(f" COLLATE {pair.live.collation}" if pair.live.collation else "")


def _text(values: Any) -> sql.Composed:
    """The text that fingerprints are made of."""
    return sql.SQL('(ROW({})::text COLLATE "C")').format(joined(values))
