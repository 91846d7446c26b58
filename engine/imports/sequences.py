"""Sequences follow imported values: only forward, only when one was passed, as the last step before the mark.

`setval` survives a ROLLBACK, so RESTART is used, which does not. And LOCK refuses sequences, so a no-change ALTER
SEQUENCE holds `nextval` of other sessions off while the position is read and set. RESTART waits for open transactions
that used `nextval`: their 55P03 or 40P01 makes the whole apply try again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg
from psycopg import sql

from engine.catalog import Entity, Field
from engine.db.platform import Connection, one_row
from engine.errors import PlatformNotPrepared

_NEXTVAL = re.compile(r"^nextval\('(.+)'::regclass\)$")


@dataclass(frozen=True)
class Advance:
    """A sequence that was moved."""

    sequence: str
    to: int


def advance(connection: Connection, entity: Entity, fields: tuple[Field, ...], source: sql.Composable) -> list[Advance]:
    """Moves the sequences behind `fields` past the greatest value in `source`.

    Raises:
        PlatformNotPrepared: SEQUENCE_NOT_OWNED, where one must move and is not ours to move.
    """
    moved = []
    for field in fields:
        name = _sequence_of(connection, entity, field)
        if name is not None and (to := _advance_one(connection, name, field, source)) is not None:
            moved.append(Advance(name, to))
    return moved


def _sequence_of(connection: Connection, entity: Entity, field: Field) -> str | None:
    """The qualified, quoted name of the sequence that fills the field."""
    if match := _NEXTVAL.match(field.default or ""):
        return match.group(1).replace("''", "'")
    if not field.identity:
        return None
    row = connection.execute(
        "SELECT pg_get_serial_sequence(%s, %s)", (entity.qualified.as_string(connection), field.column)
    ).fetchone()
    return row[0] if row else None


def _advance_one(connection: Connection, name: str, field: Field, source: sql.Composable) -> int | None:
    row = connection.execute(
        "SELECT seqincrement, seqmin, seqmax FROM pg_sequence WHERE seqrelid = %s::regclass", (name,)
    ).fetchone()
    if row is None:
        return None
    step, least, most = map(int, row)
    # a value at or beyond the sequence's end has nothing behind it that the sequence could give
    low, high = (least, most - step) if step > 0 else (least - step, most)
    reached = connection.execute(
        sql.SQL("SELECT {extreme}({column}) FROM {source} WHERE {column} BETWEEN {low} AND {high}").format(
            extreme=sql.SQL("max" if step > 0 else "min"),
            column=sql.Identifier(field.column),
            source=source,
            low=sql.Literal(low),
            high=sql.Literal(high),
        )
    ).fetchone()
    if reached is None or reached[0] is None or not _behind(connection, name, int(reached[0]), step):
        return None
    sequence = sql.SQL(name)
    try:
        connection.execute(sql.SQL("ALTER SEQUENCE {} INCREMENT BY {}").format(sequence, sql.Literal(step)))
        if not _behind(connection, name, int(reached[0]), step):
            return None
        to = int(reached[0]) + step
        connection.execute(sql.SQL("ALTER SEQUENCE {} RESTART WITH {}").format(sequence, sql.Literal(to)))
    except psycopg.errors.InsufficientPrivilege:
        raise PlatformNotPrepared(
            f"{field.name}: the sequence {name} must follow the imported values, and belongs to another role",
            reason="SEQUENCE_NOT_OWNED",
        ) from None
    return to


def _behind(connection: Connection, name: str, reached: int, step: int) -> bool:
    """Whether `nextval` could give a value that the import has used."""
    last, called = one_row(connection, sql.SQL("SELECT last_value, is_called FROM {}").format(sql.SQL(name)))
    following = int(last) + (step if called else 0)
    return following <= reached if step > 0 else following >= reached
