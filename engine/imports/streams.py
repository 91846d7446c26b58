"""The SQL of a plan's streams: what each line holds, in which order. `planfile` says how they are kept."""

from __future__ import annotations

from psycopg import sql

from engine.db.binary import ENUM, READERS
from engine.imports.effects import Reached
from engine.imports.fingerprints import fingerprint
from engine.imports.mapping import MappedColumn
from engine.imports.model import ImportType
from engine.imports.sqltext import ROW, all_of, equal, joined, listed
from engine.imports.staging import Staging, staged_name


def insert_types(staging: Staging) -> list[str]:
    """The types of a new row's fields as `binary.READERS` names them; empty where it has none for one of them."""
    fields = staging.columns.planned
    if not all(f.labels or (f.base in READERS and f.base != ENUM) for f in fields):  # some type may be called so
        return []
    return [ENUM if f.labels else f.base for f in fields]


class Streams:
    """One COPY for each stream of one entity."""

    def __init__(self, staging: Staging, seed: int) -> None:
        self._staging = staging
        self._entity = staging.entity
        self._seed = seed
        self.planned = [f.column for f in staging.columns.planned]
        self.relied = relied_columns(staging)
        self.insert_types = insert_types(staging)
        keyed = staging.keyed
        self._order = listed("s", staging.key) if keyed else sql.SQL("s.") + ROW

    def queries(self) -> dict[str, sql.Composed]:
        """Stream by stream: its COPY."""
        staging = self._staging
        found = {"INSERT": self._inserts()}
        if staging.matches:
            found["UPDATE"] = self._updates()
            found["UNCHANGED"] = self._unchanged()
        elif staging.keyed:
            found["SKIP"] = self._skips()
        if staging.mode is ImportType.REPLACE:
            found["KEEP"] = self._kept()
            found["DELETE"] = self._deletes([f.column for f in self._entity.stored])
        for number, mapped in enumerate(m for m in staging.columns.mapped if m.lookup is not None):
            found[f"LOOKUP{number}"] = self._lookups(mapped)
        found["ERRORS"] = self._errors()
        return found

    def _inserts(self) -> sql.Composed:
        """Good new rows. What fingerprint each will have follows from it, if nothing but the plan decides the row."""
        staging = self._staging
        return _copy(
            "SELECT s.{row}, {columns} FROM {staged} s WHERE {where} {order}",
            binary=bool(self.insert_types),
            row=ROW,
            columns=listed("s", self.planned),
            staged=staging.staged,
            where=staging.new(),
            # to sort 1,000,000 users that stand in order took 0.9 s
            order=sql.SQL("") if staging.in_order else sql.SQL("ORDER BY s.{}").format(ROW),
        )

    def _updates(self) -> sql.Composed:
        """Rows that get other values: new ones, then those they have now. The key is the table's own in both."""
        staging, touched, key = self._staging, self._staging.touched, self._staging.key
        round_: sql.Composable = sql.SQL("0")
        join: sql.Composable = sql.SQL("")
        if staging.may_wait:
            round_ = sql.SQL("coalesce(r.round, 0)")
            join = sql.SQL("LEFT JOIN {} r ON r.row = s.{}").format(staging.rounds, ROW)
        return self._of_matched(
            joined(
                [
                    sql.SQL("s.") + ROW,
                    fingerprint("t", self.relied, self._seed),
                    round_,
                    joined(sql.SQL("t." if c in key else "s.") + sql.Identifier(c) for c in touched),
                    listed("t", touched),
                ]
            ),
            sql.SQL("NOT m.same"),
            join,
        )

    def _unchanged(self) -> sql.Composed:
        return self._of_matched(self._relied_line(), sql.SQL("m.same"), sql.SQL(""))

    def _relied_line(self) -> sql.Composed:
        return joined([sql.SQL("s.") + ROW, fingerprint("t", self.relied, self._seed), listed("t", self._staging.key)])

    def _of_matched(self, line: sql.Composable, which: sql.Composable, join: sql.Composable) -> sql.Composed:
        staging = self._staging
        return _copy(
            "SELECT {line} FROM {staged} s JOIN {matched} m ON m.{row} = s.{row} JOIN {table} t ON {equal} {join} "
            "WHERE {which} AND {good} ORDER BY {order}",
            line=line,
            staged=staging.staged,
            matched=staging.matched,
            row=ROW,
            table=self._entity.relation,
            equal=equal(staging.key_fields),
            join=join,
            which=which,
            good=staging.good(),
            order=self._order,
        )

    def _skips(self) -> sql.Composed:
        """Rows left because the table has their key, with the fingerprint of what apply must still find there."""
        staging = self._staging
        return _copy(
            "SELECT {line} FROM {staged} s JOIN {table} t ON {equal} WHERE s.{row} IN "
            "(SELECT row FROM {verdicts} WHERE code = 'KEY_EXISTS') ORDER BY {order}",
            line=self._relied_line(),
            staged=staging.staged,
            table=self._entity.relation,
            equal=equal(staging.key_fields),
            row=ROW,
            verdicts=staging.verdicts,
            order=self._order,
        )

    def _kept(self) -> sql.Composed:
        """Rows of the table that stay only because their key stands in a refused row of the file."""
        staging = self._staging
        good = sql.SQL("NOT EXISTS (SELECT FROM {} s WHERE {})").format(
            staging.staged, all_of(equal(staging.key_fields), staging.good())
        )
        return _copy(
            "SELECT 0, {print}, {key} FROM {table} t WHERE EXISTS (SELECT FROM {kept} k WHERE {equal}) AND {good} "
            "ORDER BY {key}",
            print=fingerprint("t", self.relied, self._seed),
            key=listed("t", staging.key),
            table=self._entity.relation,
            kept=staging.kept,
            equal=equal(staging.key_fields, s="k"),
            good=good,
        )

    def _deletes(self, stored: list[str]) -> sql.Composed:
        """Rows that go, whole: what must still stand there, and what could be put back."""
        return _copy(
            'SELECT 0, g."#print", {columns} FROM {gone} g ORDER BY {order}',
            columns=listed("g", stored),
            gone=self._staging.gone,
            order=listed("g", self._staging.key),
        )

    def _lookups(self, mapped: MappedColumn) -> sql.Composed:
        """What was looked up in the table, and what was found: it must still be so."""
        assert mapped.lookup is not None
        staging, lookup = self._staging, mapped.lookup
        return _copy(
            "SELECT DISTINCT 0, s.{text}, s.{field} FROM {staged} s JOIN {target} t "
            "ON t.{found} {op} s.{text} WHERE {good}",
            text=staged_name(mapped),
            field=sql.Identifier(mapped.field.column),
            staged=staging.staged,
            target=lookup.target.relation,
            found=sql.Identifier(lookup.field.column),
            op=sql.SQL(lookup.field.equality),
            good=staging.good(),
        )

    def _errors(self) -> sql.Composed:
        return _copy(
            "SELECT row, severity, field, code, message, value FROM {verdicts} ORDER BY row, field, code",
            verdicts=self._staging.verdicts,
        )


def cascade_query(reached: Reached) -> sql.Composed:
    """Rows that foreign keys reach, whole, with what becomes of them."""
    entity = reached.entity
    stored = [f.column for f in entity.stored]
    return _copy(
        'SELECT 0, r."#print", r."#action", r."#constraint", {columns} FROM {rows} r ORDER BY {order}',
        columns=joined([listed("r", stored), *(sql.SQL("r.") + reached.becomes(c) for c in reached.changing)]),
        rows=reached.rows,
        order=listed("r", entity.key) if entity.key else sql.SQL('r."#print"'),
    )


def relied_columns(staging: Staging) -> list[str]:
    """What a row that stays or is updated depends on: its key, unique and mapped fields, in catalog order. Others may
    move."""
    relied = {*staging.key, *staging.entity.key, *staging.touched}
    for key in staging.entity.unique:
        relied |= set(key.columns)
    return [f.column for f in staging.entity.stored if f.column in relied]


def _copy(query: str, *, binary: bool = False, **parts: sql.Composable) -> sql.Composed:
    form = sql.SQL(" (FORMAT binary)" if binary else "")
    return sql.SQL("COPY ({}) TO STDOUT{}").format(sql.SQL(query).format(**parts), form)
