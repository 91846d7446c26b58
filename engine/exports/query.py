"""What an export reads: one COPY per entity, its bytes made by PostgreSQL."""

from __future__ import annotations

import codecs
import re

from psycopg import sql

from engine.catalog import Entity, Field
from engine.errors import InvalidRequest, Violation
from engine.exports.model import ExportOptions
from engine.exports.values import json_value, output_text

_BLANK = "'\\s\u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200C))) + "\u2028\u2029\u202f\u205f\u3000\ufeff"
GUARDED = f"^[{_BLANK}]*[=+\\-@|%＝＋－＠]|^['\\t\\r\\n]"
"""Texts a spreadsheet may run, behind white space or not, in full width or not; and those that begin with `'`, so that
the guard is injective and an import that is told to can undo it. The blanks are listed, each by itself: which of them
`\\s` means hangs on the database's locale, and another encoding than UTF-8 lacks some."""

_TEXTS = frozenset({"text", "character varying", "name"})
"""Types whose cast to text is their output."""


def exported_fields(entity: Entity, options: ExportOptions) -> list[Field]:
    """The fields to export, in order: those asked for, or all; never a secret one.

    Raises:
        InvalidRequest: FIELD_UNKNOWN, FIELD_SECRET, FIELD_DUPLICATE, with every offending name as a violation.
    """
    if not options.columns:
        return [field for field in entity.fields if not field.secret]
    wrong: list[tuple[str, Violation]] = []
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
        wrong.append((reason, Violation("columns", why)))
    if wrong:
        reason, first = wrong[0]
        raise InvalidRequest(f"columns: {first.description}", reason=reason, violations=[v for _, v in wrong])
    return fields


def csv_copy(
    entity: Entity, fields: list[Field], options: ExportOptions, rows: sql.Composable, encoding: str = "UTF8"
) -> sql.Composed:
    """COPY of the entity as CSV with a header. NULL is nothing, '' is `""`.

    Guarded texts are quoted anyway by COPY where they need it; the header is guarded alike. `rows` is what follows
    FROM, of `engine.exports.selection`; `encoding` is the database's, in PostgreSQL's spelling.
    """
    guard = _guard_in(encoding) if options.formula_guard else ""
    columns = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(_cell(field, guard), sql.Identifier(_guarded_name(field.name, options)))
        for field in fields
    )
    return sql.SQL("COPY (SELECT {} FROM {} t{}) TO STDOUT (FORMAT csv, HEADER true, DELIMITER {})").format(
        columns, entity.relation, rows, sql.Literal(options.delimiter)
    )


def json_copy(entity: Entity, fields: list[Field], rows: sql.Composable) -> sql.Composed:
    """COPY of the entity as one JSON object a line, raw.

    COPY's CSV leaves a value alone that holds none of delimiter, quote and line break, and JSON text holds neither
    those two control characters nor, outside of strings that escape it, a line break. The row's name is none that a
    column bears: it would be the column.
    """
    row = "#row"
    while any(field.name == row for field in fields):
        row += "#"
    columns = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(json_value(field), sql.Identifier(field.name)) for field in fields
    )
    return sql.SQL(
        "COPY (SELECT row_to_json({row}) FROM (SELECT {columns} FROM {table} t{rows}) {row})"
        " TO STDOUT (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02')"
    ).format(row=sql.Identifier(row), columns=columns, table=entity.relation, rows=rows)


def _guard_in(encoding: str) -> str:
    """The guard without characters that the database's encoding lacks: none of its texts can hold them, and PostgreSQL
    would refuse the pattern for them."""
    if encoding in ("UTF8", "SQL_ASCII"):
        return GUARDED
    try:
        codec = codecs.lookup(re.sub(r"^WIN(?=\d)", "cp", encoding)).name
    except LookupError:
        codec = "ascii"
    return "".join(mark for mark in GUARDED if mark.encode(codec, "ignore"))


def _cell(field: Field, guard: str) -> sql.Composable:
    if not guard or not _can_hold_text(field):
        return field.expression
    text = asked = _text(field)
    if field.bare_type == "bpchar":
        asked = sql.SQL("{}::bpchar").format(field.expression)
    return sql.SQL("CASE WHEN {} THEN {} WHEN {} ~ {} THEN '''' || {} ELSE {} END").format(
        _harmless(asked), text, text, sql.Literal(guard), text, text
    )


def _text(field: Field) -> sql.Composable:
    """What the type's output function gives."""
    if field.bare_type in _TEXTS:
        return sql.SQL("{}::text").format(field.expression)
    if field.bare_type == "bpchar":  # a cast to text would cut the padding off
        return sql.SQL("textin(bpcharout({}))").format(field.expression)
    return output_text(field.expression)


def _harmless(text: sql.Composable) -> sql.Composable:
    """Whether it begins with a letter, a digit or a mark that no spreadsheet runs, as most texts do. It is told by
    bytes, from A to { and from . to <, which every encoding of a server has from ASCII, in a third of the pattern's
    time. A bpchar's padding, which its comparisons leave out, comes after what tells.
    """
    return sql.SQL(
        """{0} COLLATE "C" >= 'A' AND {0} COLLATE "C" < '|' OR {0} COLLATE "C" >= '.' AND {0} COLLATE "C" < '='"""
    ).format(text)


def _can_hold_text(field: Field) -> bool:
    """Whether a value's text could begin with a trigger that is not a number's sign.

    To ask PostgreSQL of each value is what the guard costs: half as much again as the COPY without it.
    """
    if field.element:  # the text of an array begins with { or [
        return False
    if field.labels:
        return any(re.match(GUARDED, label) for label in field.labels)
    return field.category not in ("N", "B", "D", "T") and field.base not in ("uuid", "json", "jsonb", "bytea")


def _guarded_name(name: str, options: ExportOptions) -> str:
    return "'" + name if options.formula_guard and re.match(GUARDED, name) else name
