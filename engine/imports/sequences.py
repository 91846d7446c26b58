"""Sequences follow imported values: only forward, only when one was passed, as the last step before the mark.

`setval` survives a ROLLBACK, so RESTART is used, which does not. And LOCK refuses sequences, so a no-change ALTER
SEQUENCE holds `nextval` of other sessions off while the position is read and set. RESTART waits for open transactions
that used `nextval`: their 55P03 or 40P01 makes the whole apply try again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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


Reached = Mapping[str, Sequence[int]]
"""By column, the least and the greatest value that is imported."""


def numbered_fields(fields: Iterable[Field]) -> list[Field]:
    """Those of `fields` that a sequence may stand behind."""
    return [f for f in fields if f.identity or _NEXTVAL.match(f.default or "")]


def advance(
    connection: Connection,
    entity: Entity,
    fields: Iterable[Field],
    source: Callable[[], sql.Composable],
    reached: Reached | None = None,
) -> list[Advance]:
    """Moves the sequences behind `fields` past the greatest value that is imported.

    Args:
        source: gives the table of the imported rows; asked only where `reached` does not tell.

    Raises:
        PlatformNotPrepared: SEQUENCE_NOT_OWNED, where one must move and is not ours to move.
    """
    moved = []
    for field in numbered_fields(fields):
        name = sequence_of(connection, entity, field)
        known = (reached or {}).get(field.column)
        if name is not None and (to := _advance_one(connection, name, field, source, known)) is not None:
            moved.append(Advance(name, to))
    return moved


def sequence_of(connection: Connection, entity: Entity, field: Field) -> str | None:
    """The qualified, quoted name of the sequence that fills the field."""
    if match := _NEXTVAL.match(field.default or ""):
        return match.group(1).replace("''", "'")
    row = connection.execute(
        "SELECT pg_get_serial_sequence(%s, %s)", (entity.qualified.as_string(connection), field.column)
    ).fetchone()
    return row[0] if row else None


def _advance_one(
    connection: Connection,
    name: str,
    field: Field,
    source: Callable[[], sql.Composable],
    known: Sequence[int] | None,
) -> int | None:
    row = connection.execute(
        "SELECT seqincrement, seqmin, seqmax FROM pg_sequence WHERE seqrelid = %s::regclass", (name,)
    ).fetchone()
    if row is None:
        return None
    step, least, most = map(int, row)
    # a value at or beyond the sequence's end has nothing behind it that the sequence could give
    low, high = (least, most - step) if step > 0 else (least - step, most)
    furthest = None if known is None else known[1] if step > 0 else known[0]
    if furthest is None or not low <= furthest <= high:
        furthest = _furthest(connection, field, source(), step, low, high)
    if furthest is None:
        return None
    sequence, to = sql.SQL(name), furthest + step
    try:
        if not _behind(connection, name, furthest, step):  # reading it is a right of its own
            return None
        connection.execute(sql.SQL("ALTER SEQUENCE {} INCREMENT BY {}").format(sequence, sql.Literal(step)))
        if not _behind(connection, name, furthest, step):
            return None
        connection.execute(sql.SQL("ALTER SEQUENCE {} RESTART WITH {}").format(sequence, sql.Literal(to)))
    except psycopg.errors.InsufficientPrivilege:
        raise PlatformNotPrepared(
            f"{field.name}: the sequence {name} must follow the imported values, and belongs to another role",
            reason="SEQUENCE_NOT_OWNED",
        ) from None
    return to


def _furthest(
    connection: Connection, field: Field, source: sql.Composable, step: int, low: int, high: int
) -> int | None:
    (found,) = one_row(
        connection,
        sql.SQL("SELECT {extreme}({column}) FROM {source} WHERE {column} BETWEEN {low} AND {high}").format(
            extreme=sql.SQL("max" if step > 0 else "min"),
            column=sql.Identifier(field.column),
            source=source,
            low=sql.Literal(low),
            high=sql.Literal(high),
        ),
    )
    return None if found is None else int(found)


def _behind(connection: Connection, name: str, reached: int, step: int) -> bool:
    """Whether `nextval` could give a value that the import has used."""
    last, called = one_row(connection, sql.SQL("SELECT last_value, is_called FROM {}").format(sql.SQL(name)))
    following = int(last) + (step if called else 0)
    return following <= reached if step > 0 else following >= reached
