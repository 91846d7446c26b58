"""Pieces of SQL that planning and applying have in common."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from engine.catalog import Field

ROW = sql.Identifier("#row")
"""The column of a temp table that holds a record's number, beside columns that bear the table's own names."""


class Temp(sql.Identifier):
    """A temp table, by its qualified name: another table of the session's path can never be meant."""

    def __init__(self, name: str) -> None:
        super().__init__("pg_temp", name)
        self.name = name


def creation(table: sql.Identifier, columns: Iterable[sql.Composable]) -> sql.Composed:
    """The statement that makes a temp table."""
    return sql.SQL("CREATE TEMP TABLE {} ({})").format(table, joined(columns))


def joined(parts: Iterable[sql.Composable], mark: str = ", ") -> sql.Composed:
    return sql.SQL(mark).join(parts)


def listed(alias: str, columns: Iterable[str]) -> sql.Composed:
    """`alias.a, alias.b …`."""
    return joined(sql.SQL("{}.{}").format(sql.SQL(alias), sql.Identifier(c)) for c in columns)


def all_of(*conditions: sql.Composable | None) -> sql.Composed:
    """The conditions that there are, joined by AND; true where there is none."""
    found = [c for c in conditions if c is not None]
    return joined(found, " AND ") if found else sql.Composed([sql.SQL("true")])


def equal(
    fields: Iterable[Field],
    left: tuple[str, ...] = (),
    *,
    nulls_distinct: bool = True,
    s: str = "s",
    t: str = "t",
) -> sql.Composed:
    """`t` equals `s` in these fields, as a unique index sees it; `left` are the columns of `t` where they differ."""
    fields = list(fields)
    parts = []
    for field, other in zip(fields, left or tuple(f.column for f in fields), strict=True):
        mine = sql.SQL("{}.{}").format(sql.SQL(s), sql.Identifier(field.column))
        theirs = sql.SQL("{}.{}").format(sql.SQL(t), sql.Identifier(other))
        part = sql.SQL("{} {} {}").format(theirs, sql.SQL(field.equality), mine)
        if not nulls_distinct:
            part = sql.SQL("({} OR ({} IS NULL AND {} IS NULL))").format(part, theirs, mine)
        parts.append(part)
    return joined(parts, " AND ")


def typed(field: Field, name: sql.Identifier | None = None, *, default: sql.Composable | None = None) -> sql.Composed:
    """A column of a temp table that holds the field's values."""
    collation = " COLLATE " + field.collation if field.collation else ""
    column = sql.SQL("{} {}{}").format(
        name or sql.Identifier(field.column), sql.SQL(field.storage_type), sql.SQL(collation)
    )
    return column if default is None else column + sql.SQL(" DEFAULT ") + default
