"""The ways a rule says what is wrong with rows: one verdict a fault, with a code, a message and the value, masked."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from engine.catalog import Field
from engine.imports.model import Severity
from engine.imports.sqltext import ROW, all_of, joined
from engine.imports.staging import Staging
from engine.imports.validate import MASK, SHOWN

EVERY_ROW = sql.SQL("true")


class Verdicts:
    """Speaks of the staged rows of one entity, as `s`."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging

    def refuse(
        self,
        condition: sql.Composable,
        fields: Sequence[Field],
        code: str,
        message: str,
        *,
        value: sql.Composable | None = None,
        severity: Severity = Severity.FAILED,
    ) -> int:
        """A verdict on every good staged row `s` that meets the condition; how many there were."""
        staging = self._staging
        return staging.blame(
            sql.SQL("INSERT INTO {} SELECT s.{}, {}, {}, {}, {}, {} FROM {} s WHERE {}").format(
                staging.verdicts,
                ROW,
                sql.Literal(severity.value),
                sql.Literal(names(fields)),
                sql.Literal(code),
                sql.Literal(message),
                shown_all(fields) if value is None else value,
                staging.staged,
                all_of(condition, staging.good()),
            )
        )

    def forget(self, *codes: str) -> int:
        return self._staging.run(
            sql.SQL("DELETE FROM {} WHERE code = ANY({})").format(self._staging.verdicts, sql.Literal(list(codes)))
        )

    def analyze(self) -> None:
        self._staging.run(sql.SQL("ANALYZE {}").format(self._staging.verdicts))


def who(staging: Staging, columns: Sequence[str]) -> sql.Composable | None:
    """Which staged rows `s` get a value of these columns that is known, and may be another than the table has.

    New rows get what is planned; rows that the table has keep what the file does not touch. None: no row.
    """
    new = staging.has(columns)
    if not staging.matches:
        return EVERY_ROW if new else None
    old = staging.touches(columns) and staging.knows(columns)
    if new and old:
        return EVERY_ROW
    if new:
        return sql.SQL("NOT ") + staging.is_matched()
    return staging.is_matched() if old else None


def names(fields: Sequence[Field]) -> str:
    return ",".join(f.name for f in fields)


def shown(text: sql.Composable, field: Field) -> sql.Composable:
    """A value as a verdict shows it."""
    if field.secret:
        return sql.Literal(MASK)
    return sql.SQL("coalesce(left({}, {}), '')").format(text, sql.Literal(SHOWN))


def shown_all(fields: Sequence[Field], alias: str = "s") -> sql.Composable:
    if not fields:
        return sql.SQL("''")
    parts = [shown(sql.SQL("{}.{}::text").format(sql.SQL(alias), sql.Identifier(f.column)), f) for f in fields]
    return joined(parts, " || ',' || ")
