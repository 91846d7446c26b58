"""What foreign keys tell: the row referred to must be there once the plan is applied, in the table or in the file."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from engine.catalog import Catalog, Field, ForeignKey
from engine.imports.model import ImportType
from engine.imports.sqltext import ROW, all_of, equal, joined
from engine.imports.staging import Staging
from engine.imports.verdicts import Verdicts, who


class References:
    """The references of one entity. `peers` are the stagings of the whole plan, this one among them."""

    def __init__(self, staging: Staging, peers: Sequence[Staging], catalog: Catalog) -> None:
        self._staging = staging
        self._peers = peers
        self._catalog = catalog
        self._verdicts = Verdicts(staging)
        known = [r for r in staging.entity.references if who(staging, r.columns) is not None]
        self._outer = [r for r in known if not self._sources(r) and not self._targets(r)]
        self._inner = [r for r in known if r not in self._outer]

        self.moves = False
        """Whether rows of the table that the file gives another key are gone under the one they had. Told last: a
        record that is refused moves no row, and who refers to that may stay."""

    @property
    def may_move(self) -> bool:
        return any(_may_move(peer, r) for r in self._inner for peer in self._targets(r))

    def outer(self) -> None:
        """References to tables that the plan does not touch: what they say stays said."""
        for reference in self._outer:
            self._missing(reference)

    def inner(self) -> int:
        """References to tables of the plan: a row that refers to a refused one is refused with it; how many were."""
        return sum(self._missing(reference) for reference in self._inner)

    def _targets(self, reference: ForeignKey) -> list[Staging]:
        return [p for p in self._peers if p.is_target(reference)]

    def _sources(self, reference: ForeignKey) -> list[Staging]:
        """The files that may hold the row referred to."""
        return [p for p in self._targets(reference) if p.has(reference.target_columns)]

    def _missing(self, reference: ForeignKey) -> int:
        fields = [self._staging.entity.column(c) for c in reference.columns]
        target = self._catalog.of_table(reference.target_schema, reference.target_table)
        relation = target.relation if target else sql.Identifier(reference.target_schema, reference.target_table)
        stays = [self._stays(reference, peer) for peer in self._targets(reference)]
        absent: sql.Composable = sql.SQL("{} AND NOT EXISTS (SELECT FROM {} t WHERE {})").format(
            self._said(reference, fields), relation, all_of(equal(fields, reference.target_columns), *stays)
        )
        others = [p for p in self._sources(reference) if p is not self._staging]
        for peer in others:
            absent = absent + sql.SQL(" AND NOT EXISTS (SELECT FROM {} q WHERE {})").format(
                peer.staged, all_of(equal(fields, reference.target_columns, t="q"), peer.good("q"))
            )
        if self._staging in self._sources(reference):
            absent = self._fall_with_parent(reference, fields, absent)
        return self._verdicts.refuse(
            all_of(absent, who(self._staging, reference.columns)),
            fields,
            "REFERENCE_MISSING",
            f"no row of {target.name if target else reference.target_table} has this value",
        )

    def _said(self, reference: ForeignKey, fields: list[Field]) -> sql.Composable:
        columns = [sql.Identifier(f.column) for f in fields]
        any_null = [sql.SQL("s.{} IS NULL").format(c) for c in columns]
        if reference.match_full and len(columns) > 1:
            return sql.SQL("NOT ({})").format(joined(any_null, " AND "))
        return sql.SQL("NOT ({})").format(joined(any_null, " OR "))

    def _stays(self, reference: ForeignKey, peer: Staging) -> sql.Composable | None:
        """The table's row `t` is neither deleted nor gets another value of the columns that are referred to."""
        conditions: list[sql.Composable] = []
        if peer.mode is ImportType.REPLACE:
            conditions.append(sql.SQL("NOT ") + peer.leaves("t"))
        if self.moves and _may_move(peer, reference):
            same = equal([peer.entity.column(c) for c in reference.target_columns], s="n", t="t")
            conditions.append(
                sql.SQL(
                    "NOT EXISTS (SELECT FROM {} n JOIN {} m ON m.{} = n.{} AND NOT m.same WHERE {})"
                ).format(
                    peer.staged, peer.matched, ROW, ROW,
                    all_of(
                        equal(peer.key_fields, s="n"), sql.SQL("({}) IS NOT TRUE").format(same), peer.good("n")
                    ),
                )
            )  # fmt: skip
        return all_of(*conditions) if conditions else None

    def _fall_with_parent(self, reference: ForeignKey, fields: list[Field], absent: sql.Composable) -> sql.Composable:
        """A reference to a row of the same file: with a refused row fall those that refer to it, and to those.

        A value may have several good rows as long as it is not told which of them stands.
        """
        staging = self._staging
        return sql.SQL(
            "s.{row} IN (WITH RECURSIVE lost(row) AS ("
            "SELECT s.{row} FROM {staged} s WHERE {good} AND {absent} "
            "AND NOT EXISTS (SELECT FROM {staged} t WHERE {refers} AND {parent_good}) "
            "UNION SELECT s.{row} FROM lost l JOIN {staged} t ON t.{row} = l.row JOIN {staged} s ON {refers} "
            "WHERE {good} AND {absent} AND NOT EXISTS "
            "(SELECT FROM {staged} u WHERE {also} AND u.{row} <> l.row AND {other_good})) SELECT row FROM lost)"
        ).format(
            row=ROW,
            staged=staging.staged,
            good=staging.good(),
            absent=absent,
            refers=equal(fields, reference.target_columns),
            parent_good=staging.good("t"),
            also=equal(fields, reference.target_columns, t="u"),
            other_good=staging.good("u"),
        )


def _may_move(peer: Staging, reference: ForeignKey) -> bool:
    """Whether an update of the file may change what the reference points to."""
    columns = reference.target_columns
    return peer.matches and not set(columns) <= set(peer.key) and peer.touches(columns) and peer.knows(columns)
