"""The foreign keys of a database, as what follows them sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.rows import dict_row

from engine.db.platform import Connection

_EDGES = """
SELECT k.conname AS name, n.nspname AS schema, c.relname AS "table", tn.nspname AS target_schema,
       tc.relname AS target_table, k.confdeltype AS on_delete, k.confupdtype AS on_update,
       has_table_privilege(c.oid, 'SELECT') AS readable,
       CASE WHEN c.oid <> k.conrelid THEN ARRAY(SELECT relid::oid FROM pg_partition_tree(k.conrelid)) END AS parts,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(attnum, n)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum ORDER BY u.n) AS columns,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.confdelsetcols)) AS set_columns,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(attnum, n)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum ORDER BY u.n) AS target_columns
FROM pg_constraint k JOIN pg_class c ON c.oid = coalesce(pg_partition_root(k.conrelid), k.conrelid)
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class tc ON tc.oid = coalesce(pg_partition_root(k.confrelid), k.confrelid)
JOIN pg_namespace tn ON tn.oid = tc.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND coalesce(to_jsonb(k) ->> 'conenforced', 'true')::boolean
ORDER BY n.nspname, c.relname, k.conname, k.oid
"""
_ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
REFUSING = ("NO ACTION", "RESTRICT")

Table = tuple[str, str]


@dataclass(frozen=True)
class Edge:
    """One foreign key, from the table that refers to the table referred to."""

    name: str
    source: Table
    target: Table
    columns: tuple[str, ...]
    target_columns: tuple[str, ...]
    on_delete: str
    on_update: str
    readable: bool
    parts: tuple[int, ...] = ()
    """The oids of the partitions whose rows it speaks of, where that is not the whole table."""
    set_columns: tuple[str, ...] = ()
    """What ON DELETE SET NULL or SET DEFAULT sets, where that is not all of `columns`."""

    def action(self, verb: str) -> str:
        return self.on_delete if verb == "DELETE" else self.on_update

    def sets(self, verb: str) -> tuple[str, ...]:
        """The columns that it sets by itself when a row it refers to goes or gets another key."""
        return self.set_columns if verb == "DELETE" and self.set_columns else self.columns


def read_edges(connection: Connection) -> list[Edge]:
    """Every enforced foreign key of the database; partitions' copies of their root's are left out, and one of a
    partition's own stands between the whole tables."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows: list[dict[str, Any]] = cursor.execute(_EDGES).fetchall()
    return [
        Edge(
            row["name"], (row["schema"], row["table"]), (row["target_schema"], row["target_table"]),
            tuple(row["columns"]), tuple(row["target_columns"]), _ACTIONS[row["on_delete"]],
            _ACTIONS[row["on_update"]], row["readable"], tuple(row["parts"] or ()),
            tuple(row["set_columns"]),
        )
        for row in rows
    ]  # fmt: skip
