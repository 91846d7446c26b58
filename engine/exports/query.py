"""What an export reads: one COPY per entity, its bytes made by PostgreSQL."""

from __future__ import annotations

from psycopg import sql

from engine.catalog import Entity, Field
from engine.errors import InvalidRequest, Violation
from engine.exports.model import ExportOptions

_BLANK = "'\\s\u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
GUARDED = f"^[{_BLANK}]*[=+\\-@|%＝＋－＠]|^['\\t\\r\\n]"
"""Texts a spreadsheet may run, behind white space or not, in full width or not; and those that begin with `'`, so that
the guard is injective and an import that is told to can undo it. The blanks are listed: which of them `\\s` means hangs
on the database's locale."""


def exported_fields(entity: Entity, options: ExportOptions) -> list[Field]:
    """The fields to export, in order: those asked for, or all; never a secret one.

    Raises:
        InvalidRequest: FIELD_UNKNOWN, FIELD_SECRET, FIELD_DUPLICATE, with every offending name as a violation.
    """
    if not options.columns:
        return [field for field in entity.fields if not field.secret]
    wrong: list[Violation] = []
    reason = ""
    fields: list[Field] = []
    for name in options.columns:
        field = entity.field(name)
        if field is None:
            reason, why = "FIELD_UNKNOWN", f"{name!r} is no field of {entity.name}"
        elif field.secret:
            reason, why = "FIELD_SECRET", f"{name!r} is secret and never exported"
        elif field in fields:
            reason, why = "FIELD_DUPLICATE", f"{name!r} is named twice"
        else:
            fields.append(field)
            continue
        wrong.append(Violation("columns", why))
    if wrong:
        raise InvalidRequest(f"columns: {wrong[0].description}", reason=reason, violations=wrong)
    return fields


def csv_copy(entity: Entity, fields: list[Field], options: ExportOptions) -> sql.Composed:
    """COPY of the entity as CSV with a header. NULL is nothing, '' is `""`.

    Guarded texts are quoted anyway by COPY where they need it; the header is guarded alike.
    """
    columns = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(_cell(field, options), sql.Identifier(_guarded_name(field.name, options)))
        for field in fields
    )
    return sql.SQL("COPY (SELECT {} FROM {} t) TO STDOUT (FORMAT csv, HEADER true, DELIMITER {})").format(
        columns, entity.relation, sql.Literal(options.delimiter)
    )


def _cell(field: Field, options: ExportOptions) -> sql.Composable:
    if not options.formula_guard or not _can_hold_text(field):
        return field.expression
    text = sql.SQL("{}::text").format(field.expression)
    return sql.SQL("CASE WHEN {} ~ {} THEN '''' || {} ELSE {} END").format(text, sql.Literal(GUARDED), text, text)


def _can_hold_text(field: Field) -> bool:
    """Whether a value's text could begin with a trigger that is not a number's sign."""
    return field.category not in ("N", "B", "D", "T") and field.base not in ("uuid", "json", "jsonb", "bytea")


def _guarded_name(name: str, options: ExportOptions) -> str:
    return "'" + name if options.formula_guard and name[:1] in "=+-@|%'\t\r＝＋－＠" else name
