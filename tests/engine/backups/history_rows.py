"""Plain copies of rows, and how they are compared; and the conditions under which histories run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import pytest
from psycopg import sql

from engine.backups import chain, increment, known
from engine.backups.archive import Archive
from engine.backups.model import SAFETY
from engine.db.models import BackupRow
from engine.db.platform import Connection

Rows = dict[str, list[bytes]]
"""All rows of each table, as lines of COPY, sorted."""

PIECE = 50
"""Bytes."""


def rows_of(connection: Connection) -> Rows:
    """Of all tables of `public`, as a snapshot sees them that is taken now."""
    columns = connection.execute(
        "SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_class c JOIN pg_attribute a ON"
        " a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"
        " WHERE c.relnamespace = to_regnamespace('public') AND c.relkind IN ('r', 'p') GROUP BY c.relname"
    ).fetchall()
    found = {}
    for table, names in columns:
        query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(
            sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier("public", table)
        )
        with connection.cursor().copy(query) as copy:
            found[table] = sorted(bytes(line) for line in copy)
    return found


def arranged(patch: pytest.MonkeyPatch, *, pieces: bool) -> None:
    """Chains as long as they may be, whatever small tables weigh; with `pieces` streams are cut anywhere."""
    patch.setattr(chain, "LARGE", 1000)
    if not pieces:
        return
    patch.setattr(known, "AT_ONCE", 7)
    patch.setattr(increment, "GATHERED", 64)
    blocks = Archive._blocks

    def cut(self: Archive, segments: list[object]) -> Iterator[bytes]:
        for block in blocks(self, segments):  # type: ignore[arg-type]
            for at in range(0, len(block), PIECE):
                yield block[at : at + PIECE]

    patch.setattr(Archive, "_blocks", cut)


def scopes(rows: Iterable[BackupRow]) -> set[frozenset[str]]:
    """Of which entities there is a backup that somebody asked for."""
    return {frozenset(row.entity_types) for row in rows if row.trigger_type not in SAFETY}


def require_equal(found: Mapping[str, list[bytes]], expected: Mapping[str, list[bytes]], what: str) -> None:
    for table, lines in expected.items():
        if found[table] == lines:
            continue
        extra, lacking = Counter(found[table]) - Counter(lines), Counter(lines) - Counter(found[table])
        shown = [f"  {sign} {line[:100]!r}" for sign, some in (("+", extra), ("-", lacking)) for line in list(some)[:4]]
        raise AssertionError(
            f"{what}: {table} has {extra.total()} rows that were not there, and lacks {lacking.total()} of"
            f" {len(lines)}\n" + "\n".join(shown)
        )
