"""Where a snapshot lies among the transactions, and what may be concluded from it later: `docs/archive-format.md`,
section 6, with the proof."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from engine.backups.manifest import Cut
from engine.backups.work import Work
from engine.catalog import Entity, Field
from engine.db.platform import Connection, one_row
from engine.errors import Unavailable

MOST_TRANSACTIONS = 1 << 30
"""Between two cuts: a row's xmin has 32 bits, and half of them lie behind any other."""

FLUSHED_WITHIN = 5.0
"""Seconds of looking. The WAL writer flushes what nobody waits for within three times its delay, which is 0.2 s."""

COMMITTING_AFTER = 0.5
"""Seconds of waiting for the flush of what others committed; then it is something else that waits."""

_LOOKING_AFTER = 0.05

_PLAIN = (
    "bool int2 int4 int8 float4 float8 numeric money text varchar bpchar char name bytea date time timetz timestamp"
    " timestamptz interval uuid json jsonb inet cidr macaddr macaddr8 bit varbit point line lseg box path polygon"
    " circle int4range int8range numrange daterange tsrange tstzrange int4multirange int8multirange nummultirange"
    " datemultirange tsmultirange tstzmultirange tsvector tsquery oid tid pg_lsn xml"
)
PLAIN = frozenset(_PLAIN.split())
"""Base types whose text depends on the value alone. Not `regclass` and its like: a rename changes what they print."""


@dataclass(frozen=True)
class Seen:
    """Of one snapshot: its cut, the first id that it sees nothing of, and where WAL stood soon after it was taken."""

    cut: Cut
    xmax: int
    lsn: str


_ASKED = (
    "pg_current_wal_insert_lsn()",
    "pg_current_wal_lsn()",
    "pg_current_wal_flush_lsn()",
    "pg_walfile_name(pg_lsn)",
)


def seen(connection: Connection) -> Seen | None:
    """In the moment, when its snapshot has been taken. None on a standby, whose timeline is not its own to tell, and
    where our role may not ask where WAL stands: everybody may, but where somebody has taken that away."""
    may = sql.SQL("SELECT bool_and(has_function_privilege('pg_catalog.' || f, 'EXECUTE')) FROM unnest({}::text[]) f")
    if not one_row(connection, may.format(sql.Literal(list(_ASKED))))[0]:
        return None
    xmin, xmax, lsn, timeline, database, started = one_row(
        connection,
        sql.SQL(
            "SELECT pg_snapshot_xmin(pg_current_snapshot())::text, pg_snapshot_xmax(pg_current_snapshot())::text,"
            " CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn()::text END,"
            " CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END,"
            " (SELECT oid::bigint FROM pg_database WHERE datname = current_database()),"
            " (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint"
        ).format(),
    )
    if lsn is None:
        return None
    return Seen(Cut(int(xmin), int(timeline, 16), int(database), int(started)), int(xmax), lsn)


def durable(work: Work, connection: Connection, found: Seen | None) -> Cut | None:
    """The cut, if everything that its snapshot saw is on disk by now: ids of transactions that a crash undoes are given
    again.

    Where nobody commits, the server leaves the last page of WAL that a transaction has begun unwritten; a commit of our
    own, which changes nothing, has it flushed.
    """
    if found is None:
        return None
    query = sql.SQL("SELECT pg_current_wal_flush_lsn() >= {}::pg_lsn").format(sql.Literal(found.lsn))
    looks, committed = 0, False
    while not one_row(connection, query)[0]:
        work.check()
        waited = looks * _LOOKING_AFTER  # not by the clock: while a machine stands still, nobody flushes
        if waited > FLUSHED_WITHIN:
            return None
        if waited > COMMITTING_AFTER and not committed:
            # the backup is worth more than its cut: one without a session to be had, or with rights taken away
            with suppress(Unavailable, psycopg.Error), work.platform("backup, flushing", autocommit=True) as other:
                other.execute("SELECT pg_current_xact_id()")
            committed = True
        time.sleep(_LOOKING_AFTER)
        looks += 1
    return found.cut


@dataclass(frozen=True)
class Since:
    """Ids, with their epochs, of the transactions whose rows may have come since a parent: from its xmin to the first
    that is not given yet."""

    xmin: int
    xmax: int


def since(now: Seen | None, parent: Cut | None) -> Since | None:
    """A row of an earlier transaction that is visible now is in the parent; None where that cannot be concluded."""
    if parent is None or now is None or replace(now.cut, xmin=parent.xmin) != parent:
        return None
    return Since(parent.xmin, now.xmax) if 0 <= now.xmax - parent.xmin < MOST_TRANSACTIONS else None


def candidate(found: Since) -> sql.Composed:
    """Whether the row `r` may have been written since. What age() counts from is our own transaction's id where it has
    one, and that may be older than the row's: LOCK TABLE takes one before it waits."""
    return sql.SQL("age(r.xmin) BETWEEN age({}::xid) AND age({}::xid)").format(_xid(found.xmax), _xid(found.xmin))


def _xid(full: int) -> sql.Literal:
    return sql.Literal(str(full % (1 << 32)))


def heaps_of(connection: Connection, entity: Entity) -> tuple[tuple[int, ...], ...]:
    """OID and filenode of each table that holds rows of the entity, and the numbers of the stored columns in it; empty
    where nothing can be concluded from rows' xmin or from their heaps being the same.

    A column that was dropped and added again has another number; all of its values are others then, and neither a row's
    xmin nor the filenode tells. So do two columns of a partition that exchange their names while it is detached.
    """
    if not all(_plain(field) for field in entity.stored):
        return ()
    rows = connection.execute(
        sql.SQL(
            "SELECT c.oid::bigint, pg_relation_filenode(c.oid)::bigint, am.amname,"
            " ARRAY(SELECT a.attnum::int FROM unnest({names}::name[]) WITH ORDINALITY n (name, place)"
            " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = n.name ORDER BY n.place)"
            " FROM pg_class c LEFT JOIN pg_am am ON am.oid = c.relam"
            " WHERE c.oid IN (SELECT {table}::regclass UNION SELECT relid FROM pg_partition_tree({table}::regclass))"
            " AND c.relkind <> 'p' ORDER BY 1"
        ).format(
            table=sql.Literal(entity.qualified.as_string()),
            names=sql.Literal([field.column for field in entity.stored]),
        )
    ).fetchall()
    if not all(access == "heap" and filenode for _, filenode, access, _ in rows):
        return ()
    return tuple((oid, filenode, *columns) for oid, filenode, _, columns in rows)


def _plain(field: Field) -> bool:
    return bool(field.labels) or field.base.removeprefix("_") in PLAIN
