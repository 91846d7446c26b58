"""Map: which column of the file fills which field, decided before any row is read.

Unknown, missing, duplicate and case-colliding columns are refused here, all at once: a file whose header is misread is
valid, row for row, and wrong.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from psycopg import sql

from engine.catalog import Entity, Field
from engine.errors import DataInvalid, Violation
from engine.imports.model import ColumnMapping

REJECT_COLUMNS = ("_row", "_code", "_field", "_message")
"""What a reject file appends: left out when the corrected file comes back."""


@dataclass(frozen=True)
class MappedColumn:
    index: int
    """Of the file's column, from 0."""
    field: Field


@dataclass(frozen=True)
class Columns:
    """What each field of a new row gets: a cell, a constant, or what the server assigns."""

    header: tuple[str, ...]
    mapped: tuple[MappedColumn, ...]
    """In catalog order."""
    constants: tuple[tuple[Field, sql.Composable], ...]
    server_assigned: tuple[Field, ...]

    @cached_property
    def planned(self) -> tuple[Field, ...]:
        """Every field whose value the plan holds: mapped ones, then constants."""
        return (*(m.field for m in self.mapped), *(field for field, _ in self.constants))

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """Indexes of the columns that stand in a reject file: all but its own from an earlier round."""
        return tuple(i for i, name in enumerate(self.header) if name not in REJECT_COLUMNS)


def map_columns(
    header: tuple[str, ...],
    entity: Entity,
    mapping: tuple[ColumnMapping, ...],
    *,
    may_set_secrets: Callable[[], bool],
) -> Columns:
    """Every column of `header` in its field.

    Raises:
        DataInvalid: with all that is wrong as violations; its reason is theirs when they are of one kind
            (COLUMN_UNKNOWN, COLUMN_DUPLICATE, COLUMN_MISSING, FIELD_NOT_SETTABLE, SECRET_FORBIDDEN, SECRET_REQUIRED),
            else COLUMNS_REFUSED.
    """
    found = _Found()
    names = [name for name in header if name not in REJECT_COLUMNS]
    _refuse_duplicates(names, found)
    fields = _fields_of(header, entity, mapping, found)
    mapped = []
    for index, field in fields:
        if _settable(header[index], field, found, may_set_secrets):
            mapped.append(MappedColumn(index, field))
    set_fields = [m.field for m in mapped]
    for name, times in Counter(f.name for f in set_fields).items():
        if times > 1:
            found.add("COLUMN_DUPLICATE", name, f"found {times} columns for the field {name!r}, expected one")
    if not fields and not found:
        found.add("COLUMN_MISSING", "", f"found no column that fills a field of {entity.name}")
    constants, assigned = _unmapped(entity, {f.name for _, f in fields}, found)
    found.refuse()
    order = {field.name: i for i, field in enumerate(entity.fields)}
    mapped.sort(key=lambda m: order[m.field.name])
    return Columns(header, tuple(mapped), tuple(constants), tuple(assigned))


class _Found:
    """Collects what is wrong with a header."""

    def __init__(self) -> None:
        self._wrong: list[tuple[str, Violation]] = []

    def add(self, code: str, subject: str, description: str) -> None:
        self._wrong.append((code, Violation(subject, description)))

    def __bool__(self) -> bool:
        return bool(self._wrong)

    def refuse(self) -> None:
        if not self._wrong:
            return
        codes = {code for code, _ in self._wrong}
        shown = "; ".join(v.description for _, v in self._wrong[:3])
        more = f"; and {len(self._wrong) - 3} more" if len(self._wrong) > 3 else ""
        raise DataInvalid(
            f"columns: {shown}{more}",
            reason=codes.pop() if len(codes) == 1 else "COLUMNS_REFUSED",
            violations=[Violation(v.subject, f"{code}: {v.description}") for code, v in self._wrong],
        )


def _refuse_duplicates(names: list[str], found: _Found) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            found.add("COLUMN_DUPLICATE", name, f"found the column {name!r} {times} times, expected once")
    folded = Counter(name.casefold() for name in dict.fromkeys(names))
    for name in dict.fromkeys(names):
        if folded[name.casefold()] > 1:
            found.add("COLUMN_DUPLICATE", name, f"found {name!r} beside a column that differs from it in case only")


def _fields_of(
    header: tuple[str, ...], entity: Entity, mapping: tuple[ColumnMapping, ...], found: _Found
) -> list[tuple[int, Field]]:
    renamed = {m.column: m.field for m in mapping}
    for step in mapping:
        if step.column not in header:
            found.add(
                "COLUMN_UNKNOWN", step.column, f"the mapping names the column {step.column!r}, which the file lacks"
            )
    fields = []
    for index, name in enumerate(header):
        if name in REJECT_COLUMNS:
            if entity.field(name) is not None and renamed.get(name, name) == name:
                found.add("FIELD_NOT_SETTABLE", name, f"{name!r} is a field and a reject file's own column: rename it")
            continue
        field = entity.field(renamed.get(name, name))
        if field is None:
            found.add("COLUMN_UNKNOWN", name, _unknown(renamed.get(name, name), entity))
        else:
            fields.append((index, field))
    return fields


def _unknown(name: str, entity: Entity) -> str:
    # never a secret field: it would invite somebody to load plain passwords as hashes
    open_fields = [f.name.casefold() for f in entity.fields if not f.secret]
    near = difflib.get_close_matches(name.casefold(), open_fields, n=1)
    hint = f"; did you mean {next(f.name for f in entity.fields if f.name.casefold() == near[0])!r}?" if near else ""
    return f"found the column {name[:60]!r}, which is no field of {entity.name}{hint}"


def _settable(column: str, field: Field, found: _Found, may_set_secrets: Callable[[], bool]) -> bool:
    if field.generated:
        found.add("FIELD_NOT_SETTABLE", column, f"{field.name!r} is generated from other fields and cannot be set")
        return False
    if field.secret and not may_set_secrets():
        found.add("SECRET_FORBIDDEN", column, f"{field.name!r} is a secret field, and setting it is not permitted")
        return False
    return True


def _unmapped(
    entity: Entity, mapped: set[str], found: _Found
) -> tuple[list[tuple[Field, sql.Composable]], list[Field]]:
    constants: list[tuple[Field, sql.Composable]] = []
    assigned: list[Field] = []
    for field in entity.stored:
        if field.name in mapped:
            continue
        if field.secret and field.fill is not None:
            constants.append((field, sql.SQL("{}::{}").format(sql.Literal(field.fill), sql.SQL(field.storage_type))))
        elif field.server_assigned:
            assigned.append(field)
        elif field.default is not None:
            constants.append((field, sql.SQL(field.default)))
        elif field.nullable:
            constants.append((field, sql.SQL("NULL")))
        elif field.secret:
            found.add(
                "SECRET_REQUIRED", field.name, f"{field.name!r} is secret, required and has no fill in the catalog"
            )
        else:
            found.add("COLUMN_MISSING", field.name, f"missing the column {field.name!r}, which is required")
    return constants, assigned
