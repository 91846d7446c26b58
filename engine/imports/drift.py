"""What the plan relied on, looked at again under the locks: nothing may have moved, or what has is left out.

That planned keys and unique values are absent needs no look: the unique indexes refuse the insert otherwise.
"""

from __future__ import annotations

from psycopg import sql

from engine.catalog import Catalog, Entity
from engine.db.platform import Connection, one_number
from engine.errors import Aborted
from engine.imports.fingerprints import fingerprint
from engine.imports.loaded import PRINT, Loaded
from engine.imports.locks import ROW_EXCLUSIVE
from engine.imports.model import ImportType
from engine.imports.sqltext import ROW, all_of, equal, joined

MOVED = "the row has moved since the plan was made"


class Drift:
    """One entity's plan against its table as it is now."""

    def __init__(self, connection: Connection, entry: Loaded, mode: ImportType, seed: int) -> None:
        self._connection = connection
        self._entry = entry
        self._mode = mode
        self._seed = seed
        self._relation = entry.entity.relation

    def require_none(self) -> None:
        """Raises:
        Aborted: PLAN_STALE with how many rows have moved.
        """
        entry = self._entry
        expected = sum(entry.rows(kind) for kind in ("UPDATE", "UNCHANGED", "SKIP", "KEEP", "DELETE"))
        if not expected and self._mode is not ImportType.REPLACE:
            return
        found = self._standing_updates() + self._count(entry.stays, self._relied())
        found += self._count(entry.gone, self._whole())
        if found != expected:
            raise stale(f"{entry.entity.name}: {expected - found} of {expected} rows have changed since the plan")
        if self._mode is ImportType.REPLACE and (there := self._rows()) != expected:
            raise stale(f"{entry.entity.name}: found {there} rows, expected the {expected} of the plan")

    def leave_out(self) -> tuple[int, int]:
        """Takes out of the plan what has moved. How many records were unchanged and are not any more, and how many rows
        stay that were to go."""
        entry = self._entry
        self._take_out(entry.updates, self._moved(self._relied()))
        kept = self._run(
            sql.SQL("DELETE FROM {} s WHERE {}").format(entry.gone, self._moved(self._whole()))
        )  # fmt: skip
        self._take_out(entry.planned, self._come())
        unchanged = 0
        if self._mode is not ImportType.ADDITIVE:
            unchanged = self._take_out(
                entry.stays, all_of(sql.SQL("s.{} > 0").format(ROW), self._moved(self._relied()))
            )
        return unchanged, kept

    def require_effects(self) -> None:
        """Raises:
        Aborted: PLAN_STALE when an update or delete was left out: what foreign keys were planned to do for it is not to
            be done either.
        """
        entry = self._entry
        left = one_number(
            self._connection,
            sql.SQL("SELECT (SELECT count(*) FROM {}) + (SELECT count(*) FROM {})").format(entry.updates, entry.gone),
        )
        if (out := entry.rows("UPDATE") + entry.rows("DELETE") - left) > 0:
            raise stale(f"{entry.entity.name}: {out} rows have moved, and foreign keys would follow them")

    def lookups(self, table: sql.Identifier, number: int, catalog: Catalog) -> None:
        """Raises:
        Aborted: PLAN_STALE when a reference would be found to be another one, or none.
        """
        lookup = self._entry.head["lookups"][number]
        target = catalog.entity(lookup["target"])
        join = sql.SQL("FROM {} s JOIN {} t ON t.{} {} s.text AND t.{} {} s.found").format(
            table, target.relation, sql.Identifier(lookup["found"]),
            sql.SQL(target.column(lookup["found"]).equality), sql.Identifier(lookup["refers"]),
            sql.SQL(target.column(lookup["refers"]).equality),
        )  # fmt: skip
        # held until COMMIT, or the row might be given another text meanwhile; that takes a right to update there
        held = sql.SQL("FOR SHARE OF t" if self._may_hold(target) else "")
        found = one_number(self._connection, sql.SQL("SELECT count(*) FROM (SELECT {} {}) l").format(join, held))
        expected = self._entry.rows(f"LOOKUP{number}")
        if found != expected:
            raise stale(f"{expected - found} rows of {target.name} that were looked up have changed since the plan")

    # --- how

    def _may_hold(self, target: Entity) -> bool:
        row = self._connection.execute(
            "SELECT has_any_column_privilege(%s::regclass, 'UPDATE')", (target.qualified.as_string(self._connection),)
        ).fetchone()
        return bool(row and row[0])

    def _relied(self) -> sql.Composable:
        return fingerprint("t", self._entry.head["relied"], self._seed)

    def _whole(self) -> sql.Composable:
        return fingerprint("t", [f.column for f in self._entry.entity.stored], self._seed)

    def _standing_updates(self) -> int:
        """Counted; where others may write, each row is locked as it is found standing, in key order."""
        entry = self._entry
        if not entry.rows("UPDATE"):
            return 0
        if entry.lock != ROW_EXCLUSIVE:
            return self._count(entry.updates, self._relied())
        order = joined(sql.SQL("t.") + sql.Identifier(f.column) for f in entry.key)
        return one_number(
            self._connection,
            sql.SQL(
                "SELECT count(*) FROM (SELECT FROM {} s JOIN {} t ON {} WHERE {} = s.{} ORDER BY {} FOR UPDATE OF t) l"
            ).format(entry.updates, self._relation, entry.same_key(), self._relied(), PRINT, order),
        )

    def _count(self, table: sql.Identifier, print_: sql.Composable) -> int:
        if not self._entry.head["key"]:
            return 0
        return one_number(
            self._connection,
            sql.SQL("SELECT count(*) FROM {} s JOIN {} t ON {} WHERE {} = s.{}").format(
                table, self._relation, self._entry.same_key(), print_, PRINT
            ),
        )

    def _rows(self) -> int:
        return one_number(self._connection, sql.SQL("SELECT count(*) FROM {}").format(self._relation))

    def _moved(self, print_: sql.Composable) -> sql.Composable:
        return sql.SQL("NOT EXISTS (SELECT FROM {} t WHERE {} AND {} = s.{})").format(
            self._relation, self._entry.same_key(), print_, PRINT
        )

    def _come(self) -> sql.Composable:
        """A new row's key or unique value is there by now, in a row that the plan neither deletes nor updates."""
        entry = self._entry
        others = [k for k in entry.entity.unique if not k.partial and all(c in entry.columns for c in k.columns)]
        found: list[sql.Composable] = []
        for key in others:
            fields = [entry.entity.column(c) for c in key.columns]
            stays = [
                sql.SQL("NOT EXISTS (SELECT FROM {} x WHERE {})").format(table, entry.same_key(s="x"))
                for table in ((entry.gone, entry.updates) if entry.head["key"] else ())
            ]
            found.append(
                sql.SQL("EXISTS (SELECT FROM {} t WHERE {})").format(
                    self._relation, all_of(equal(fields, nulls_distinct=key.nulls_distinct), *stays)
                )
            )
        return sql.SQL("({})").format(joined(found, " OR ")) if found else sql.SQL("false")

    def _take_out(self, table: sql.Identifier, condition: sql.Composable) -> int:
        return self._run(
            sql.SQL(
                "WITH moved AS (DELETE FROM {} s WHERE {} RETURNING s.{}) INSERT INTO {} "
                "SELECT {}, 'SKIPPED', '', 'SKIP_MOVED', {} FROM moved"
            ).format(table, condition, ROW, self._entry.errors, ROW, sql.Literal(MOVED))
        )

    def _run(self, query: sql.Composed) -> int:
        return self._connection.execute(query).rowcount


def stale(what: str) -> Aborted:
    return Aborted(f"{what}; nothing was changed, make a new plan", reason="PLAN_STALE")
