"""Whether rows of a backup fit rules that came after it: types, NOT NULL, checks, unique keys. Foreign keys: `plan`."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg import sql

from engine.db.platform import Connection, one_number, one_row
from engine.imports.sqltext import Temp, listed
from engine.restores.schema import Fit, Pair


def faults_of(connection: Connection, found: Fit, staged: Temp) -> list[str]:
    """Every rule of the table that rows of the staged backup break, with their number. What only the table itself can
    judge (unique indexes on expressions, exclusion constraints, partitions) is left to the restore, which undoes it."""
    faults = list(_types(connection, found, staged))
    if faults:
        return faults  # what cannot be read cannot be judged further
    for judge in (_required, _checks, _unique):
        faults += judge(connection, found, staged)
    return faults


def _types(connection: Connection, found: Fit, staged: Temp) -> Iterator[str]:
    """Each value must read as the new type, and be the same text then: nothing is cut, rounded, shifted in silence."""
    for pair in (p for p in found.pairs if p.retyped):
        text = sql.SQL("b.{}::text").format(sql.Identifier(pair.old.name))
        new = sql.SQL(pair.new.type)
        bad = one_number(
            connection,
            sql.SQL("SELECT count(*) FROM {} b WHERE NOT pg_input_is_valid({}, {})").format(
                staged, text, sql.Literal(pair.new.type)
            ),
        )
        if not bad:
            bad = one_number(
                connection,
                sql.SQL("SELECT count(*) FROM {} b WHERE {}::{}::text IS DISTINCT FROM {}").format(
                    staged, text, new, text
                ),
            )
        if bad:
            yield f"{pair.new.column}: {bad} values of type {pair.old.type} are not the same as {pair.new.type}"


def _required(connection: Connection, found: Fit, staged: Temp) -> Iterator[str]:
    for pair in (p for p in found.pairs if not p.new.nullable):
        if nulls := _count(connection, found, staged, sql.SQL("r.{} IS NULL").format(_new(pair))):
            yield f"{pair.new.column}: it is NOT NULL now, and NULL in {nulls} rows of the backup"


def _checks(connection: Connection, found: Fit, staged: Temp) -> Iterator[str]:
    columns = {p.new.column for p in found.pairs}
    for check in found.live.checks:
        if not set(check.columns) <= columns:
            continue
        broken = sql.SQL("NOT ({})").format(sql.SQL(check.expression))
        try:
            with connection.transaction():
                rows = _count(connection, found, staged, broken)
        except psycopg.OperationalError:
            raise
        except psycopg.Error:
            continue  # it cannot be evaluated here: the table will say it of the row
        if rows:
            yield f"check {check.name}: {rows} rows of the backup break it"


def _unique(connection: Connection, found: Fit, staged: Temp) -> Iterator[str]:
    columns = {p.new.column for p in found.pairs}
    for key in (k for k in found.live.unique if not k.partial and set(k.columns) <= columns):
        names = listed("r", key.columns)
        present = sql.SQL(" AND ").join(sql.SQL("r.{} IS NOT NULL").format(sql.Identifier(c)) for c in key.columns)
        query = sql.SQL(
            "SELECT count(*), coalesce(sum(n), 0) FROM (SELECT count(*) AS n FROM {} r WHERE {} GROUP BY {}"
            " HAVING count(*) > 1) d"
        ).format(found.selected(staged), present if key.nulls_distinct else sql.SQL("true"), names)
        values, rows = one_row(connection, query)
        if values:
            yield f"unique key {key.name}: {rows} rows of the backup share {values} values of it"


def _count(connection: Connection, found: Fit, staged: Temp, condition: sql.Composable) -> int:
    return one_number(
        connection, sql.SQL("SELECT count(*) FROM {} r WHERE {}").format(found.selected(staged), condition)
    )


def _new(pair: Pair) -> sql.Identifier:
    return sql.Identifier(pair.new.column)
