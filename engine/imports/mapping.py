"""Map: which column of the file fills which field, decided before any row is read.

Unknown, missing, duplicate and case-colliding columns are refused here, and every mapping that cannot be meant, all at
once: a file whose header is misread is valid, row for row, and wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from psycopg import sql

from engine.catalog import Catalog, Entity, Field, ForeignKey
from engine.imports.found import Found, quoted
from engine.imports.model import FieldMapping
from engine.imports.steps import check_steps, find_lookup

REJECT_COLUMNS = ("_row", "_code", "_field", "_message")
"""What a reject file appends: left out when the corrected file comes back."""


@dataclass(frozen=True)
class Lookup:
    """A reference that the file gives by another unique field of its target."""

    reference: ForeignKey
    """The single-column foreign key of the mapped field."""
    target: Entity
    field: Field
    """Of the target; the file's text is a value of it."""


@dataclass(frozen=True)
class MappedColumn:
    index: int
    """Of the file's column, from 0."""
    field: Field
    steps: FieldMapping | None = None
    """None: the cell as it is."""
    lookup: Lookup | None = None

    @property
    def read_as(self) -> Field:
        """What the cell, after its steps, must be a value of."""
        return self.lookup.field if self.lookup else self.field


@dataclass(frozen=True)
class Missing:
    """A field that a new row must have and the file does not fill."""

    field: Field
    code: str
    """COLUMN_MISSING or SECRET_REQUIRED."""
    message: str


@dataclass(frozen=True)
class Columns:
    """What each field of a new row gets: a cell, a constant, or what the server assigns."""

    header: tuple[str, ...]
    mapped: tuple[MappedColumn, ...]
    """In catalog order. One column may fill several fields."""
    constants: tuple[tuple[Field, sql.Composable], ...]
    server_assigned: tuple[Field, ...]
    missing: tuple[Missing, ...] = ()
    """Empty where every row would be a new one: then the file is refused at once."""
    fixed: tuple[Field, ...] = ()
    """Those of `constants` that a mapping sets in every row, new or not; the others are for new rows only."""

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
    mapping: tuple[FieldMapping, ...],
    *,
    may_set_secrets: Callable[[], bool],
    catalog: Catalog | None = None,
    key: tuple[str, ...] = (),
    new_rows_only: bool = True,
) -> Columns:
    """Every column of `header` in its field, every field with its source.

    `mapping` is this entity's; `catalog` is where lookups find their targets. With `new_rows_only` a field that a new
    row needs must be filled; without, it is told in `missing`, and the columns of `key` must be filled.

    Raises:
        DataInvalid: with all that is wrong as violations; its reason is theirs when they are of one kind
            (COLUMN_UNKNOWN, COLUMN_DUPLICATE, COLUMN_MISSING, KEY_MISSING, FIELD_UNKNOWN, FIELD_NOT_SETTABLE,
            MAPPING_INVALID, SECRET_FORBIDDEN, SECRET_REQUIRED), else COLUMNS_REFUSED.
    """
    found = Found()
    asked = _Asked(header, entity, mapping, found)
    asked.refuse_misread_names()
    asked.refuse_misfits()
    sources = [*asked.columns(), *asked.constants()]
    asked.refuse_shared_fields()
    sources = [s for s in sources if _settable(s, found, may_set_secrets)]
    mapped = [_mapped(s, entity, catalog, found) for s in sources if s.index is not None]
    if not mapped and not found:
        found.add("COLUMN_MISSING", "", f"found no column that fills a field of {entity.name}")
    fixed = {s.field.name: s.steps.constant for s in sources if s.steps and s.steps.constant is not None}
    if not new_rows_only:
        _refuse_missing_key(entity, key, asked.filled, found)
    constants, assigned, missing = _unmapped(entity, asked.filled, fixed)
    if new_rows_only:
        for lack in missing:
            found.add(lack.code, lack.field.name, lack.message)
    found.refuse()
    order = {field.name: i for i, field in enumerate(entity.fields)}
    mapped.sort(key=lambda m: order[m.field.name])
    return Columns(
        header,
        tuple(mapped),
        tuple(constants),
        tuple(assigned),
        tuple(missing),
        tuple(field for field, _ in constants if field.name in fixed),
    )


@dataclass(frozen=True)
class _Source:
    """Where one field's value comes from: a column of the file, or (without index) the constant in `steps`."""

    field: Field
    named: str
    """As messages name it: the column, or the field of a constant."""
    index: int | None = None
    steps: FieldMapping | None = None


class _Asked:
    """A header and a mapping, taken together."""

    def __init__(
        self, header: tuple[str, ...], entity: Entity, mapping: tuple[FieldMapping, ...], found: Found
    ) -> None:
        self._header, self._entity, self._mapping, self._found = header, entity, mapping, found
        self._names = [name for name in header if name not in REJECT_COLUMNS]
        self._ignored = {m.column for m in mapping if m.column is not None and not m.field}
        self._named = {m.column for m in mapping if m.column is not None}
        self._own = [name for name in self._names if name not in self._named and entity.field(name) is not None]
        self._wanted = [m.field for m in mapping if m.field]
        self.filled = {name for name in (*self._own, *self._wanted) if entity.field(name) is not None}
        """Names of the fields that get a value, by a column or a constant."""

    def refuse_misread_names(self) -> None:
        """Names that could be taken for one another, unless the mapping tells them apart."""
        for name, times in Counter(self._names).items():
            if times > 1:
                self._found.add("COLUMN_DUPLICATE", name, f"found the column {name!r} {times} times, expected once")
        distinct = list(dict.fromkeys(self._names))
        folded = Counter(name.casefold() for name in distinct)
        clear = {f for f in folded if all(name in self._named for name in distinct if name.casefold() == f)}
        for name in distinct:
            if folded[name.casefold()] > 1 and name.casefold() not in clear:
                self._found.add(
                    "COLUMN_DUPLICATE", name, f"found {name!r} beside a column that differs from it in case only"
                )

    def refuse_misfits(self) -> None:
        """Records of the mapping that no file could make sense of, or not this one."""
        add, taken = self._found.add, {m.column for m in self._mapping if m.field}
        for m in self._mapping:
            if (m.column is None) == (m.constant is None):
                add("MAPPING_INVALID", m.field, f"mapping of {quoted(m.field)}: expected a column or else a constant")
            elif m.column is None:
                if not m.field:
                    add("MAPPING_INVALID", "", "found a constant for no field, expected the field that it fills")
            elif m.column not in self._header:
                hint = self._found.near(m.column, (name for name in self._names if name not in self._named))
                said = f"the mapping names the column {quoted(m.column)}, which the file lacks{hint}"
                add("COLUMN_UNKNOWN", m.column, said)
            elif m.field and m.column in self._ignored:
                add("MAPPING_INVALID", m.column, f"the mapping both leaves out and uses the column {quoted(m.column)}")
            elif m.field and m.column in REJECT_COLUMNS:
                add("MAPPING_INVALID", m.column, f"{m.column!r} is a reject file's own column: rename it in the file")
            if m.field and self._entity.field(m.field) is None:
                said = f"the mapping names the field {quoted(m.field)}, which {self._entity.name} lacks"
                add("FIELD_UNKNOWN", m.field, said + self._near_field(m.field))
        for name in self._header:
            clash = name in REJECT_COLUMNS and self._entity.field(name) is not None
            if clash and name not in self._ignored and name not in taken:
                add("FIELD_NOT_SETTABLE", name, f"{name!r} is a field and a reject file's own column: rename it")

    def columns(self) -> list[_Source]:
        """The fields that columns fill; a column that fills none and is not left out is refused."""
        sources = []
        for index, name in enumerate(self._header):
            if name in REJECT_COLUMNS or name in self._ignored:
                continue
            if name in self._named:
                steps = [m for m in self._mapping if m.column == name and m.constant is None]
                known = [(self._entity.field(m.field), m) for m in steps]
                sources += [_Source(field, name, index, m) for field, m in known if field is not None]
            elif (field := self._entity.field(name)) is not None:
                sources.append(_Source(field, name, index))
            else:
                hint = self._near_field(name) or "; a mapping to no field leaves it out"
                said = f"found the column {quoted(name)}, which is no field of {self._entity.name}{hint}"
                self._found.add("COLUMN_UNKNOWN", name, said)
        return sources

    def constants(self) -> list[_Source]:
        made = [m for m in self._mapping if m.constant is not None and m.column is None]
        known = [(self._entity.field(m.field), m) for m in made]
        return [_Source(field, m.field, None, m) for field, m in known if field is not None]

    def refuse_shared_fields(self) -> None:
        for name, times in Counter([*self._own, *self._wanted]).items():
            if times > 1 and name in self.filled:
                said = f"found {times} columns or constants for the field {name!r}, expected one"
                self._found.add("COLUMN_DUPLICATE", name, said)

    def _near_field(self, name: str) -> str:
        # never a secret field: it would invite somebody to load plain passwords as hashes; and none that is filled
        fields = [f for f in self._entity.stored if not f.secret and f.name not in self.filled]
        return self._found.near(name, (f.name for f in fields))


def _settable(source: _Source, found: Found, may_set_secrets: Callable[[], bool]) -> bool:
    field = source.field
    if field.generated:
        hint = "" if source.index is None else "; a mapping to no field leaves the column out"
        said = f"{field.name!r} is generated from other fields, cannot be set{hint}"
        found.add("FIELD_NOT_SETTABLE", source.named, said)
        return False
    if field.secret and not may_set_secrets():
        found.add(
            "SECRET_FORBIDDEN", source.named, f"{field.name!r} is a secret field, and setting it is not permitted"
        )
        return False
    if source.steps is not None and source.index is None:
        check_steps(source.steps, field, found)
    return True


def _mapped(source: _Source, entity: Entity, catalog: Catalog | None, found: Found) -> MappedColumn:
    assert source.index is not None
    steps, lookup = source.steps, None
    if steps is not None and steps.lookup:
        target = find_lookup(steps.lookup, source.field, entity, catalog, found)
        lookup = Lookup(*target) if target else None
    mapped = MappedColumn(source.index, source.field, steps, lookup)
    if steps is not None and (lookup or not steps.lookup):
        check_steps(steps, mapped.read_as, found)
    return mapped


def _refuse_missing_key(entity: Entity, key: tuple[str, ...], filled: set[str], found: Found) -> None:
    for field in map(entity.column, key):
        if field.name not in filled:
            said = f"missing the column {field.name!r}, which tells which row is meant"
            found.add("KEY_MISSING", field.name, said)


def _unmapped(
    entity: Entity, filled: set[str], fixed: dict[str, str]
) -> tuple[list[tuple[Field, sql.Composable]], list[Field], list[Missing]]:
    constants: list[tuple[Field, sql.Composable]] = []
    assigned: list[Field] = []
    missing: list[Missing] = []
    for field in entity.stored:
        if (text := fixed.get(field.name)) is not None:
            constants.append((field, _constant(field, text)))
        elif field.name in filled:
            continue
        elif field.secret and field.fill_sql is not None:
            constants.append((field, sql.SQL(f"({field.fill_sql})::{field.storage_type}")))
        elif field.secret and field.fill is not None:
            constants.append((field, _constant(field, field.fill)))
        elif field.server_assigned:
            assigned.append(field)
        elif field.default is not None:
            constants.append((field, sql.SQL(field.default)))
        elif field.nullable:
            constants.append((field, sql.SQL("NULL")))
        elif field.secret:
            reason, said = "SECRET_REQUIRED", f"{field.name!r} is secret, required and has no fill in the catalog"
            missing.append(Missing(field, reason, said))
        else:
            reason, said = "COLUMN_MISSING", f"missing the column {field.name!r}, which is required"
            missing.append(Missing(field, reason, said))
    return constants, assigned, missing


def _constant(field: Field, text: str) -> sql.Composable:
    return sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(field.storage_type))
