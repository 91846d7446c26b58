"""What one plan is made of: its entities, each with the file that its rows are in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from engine.catalog import Catalog, Entity, Field
from engine.errors import DataInvalid, FailedPrecondition
from engine.formats.base import ByteSource, RawBatch, Reader
from engine.imports.decode import open_reader, without_guard
from engine.imports.mapping import Columns, map_columns
from engine.imports.model import FieldMapping, ImportOptions, ImportType
from engine.imports.staging import OWN_COLUMNS, Staging

MOST_FIELDS = 1_500
"""PostgreSQL's 1,600 columns of a table, less ours."""

MOST_TOUCHED = 798
"""Of a file whose rows may update others: its plan has three numbers, the new and the old values in one line."""


@dataclass
class Tally:
    """What has come by of one file."""

    records: int = 0
    blank: int = 0
    faults: int = 0
    bytes_read: int = 0


class _Nothing:
    """A file without records."""

    def __init__(self, header: tuple[str, ...]) -> None:
        self.header = header

    def batches(self) -> Iterator[RawBatch]:
        return iter(())


@dataclass
class Target:
    """One entity of a plan and the file of its rows. `staging` is made when the session is there."""

    number: int
    entity: Entity
    options: ImportOptions
    mode: ImportType
    open_reader: Callable[[], Reader]
    columns: Columns
    key: tuple[str, ...]
    records: int | None = None
    """How many the file must have, where its bundle says so."""
    tally: Tally = field(default_factory=Tally)
    unchecked: list[str] = field(default_factory=list)
    unchecked_new: list[str] = field(default_factory=list)
    gone: int = 0
    staging: Staging = field(init=False)

    def reader(self) -> Reader:
        """A fresh pass over the file."""
        return self.open_reader()

    def batches(self, reader: Reader) -> Iterator[RawBatch]:
        """The file's records, counted, without the formula guard where it is to be undone.

        Raises:
            DataInvalid: BUNDLE_DAMAGED, when there are more or fewer than its manifest says.
        """
        for batch in reader.batches():
            self.tally.records += batch.cells.num_rows + len(batch.broken)
            self.tally.blank += batch.blank
            self.tally.bytes_read = batch.bytes_read
            yield without_guard(batch) if self.options.csv.undo_formula_guard else batch
        if self.records is not None and self.tally.records != self.records:
            raise DataInvalid(
                f"{self.entity.name}: found {self.tally.records} records, expected the manifest's {self.records}",
                reason="BUNDLE_DAMAGED",
            )


def make_target(
    number: int,
    entity: Entity,
    catalog: Catalog,
    *,
    options: ImportOptions,
    mode: ImportType,
    mapping: tuple[FieldMapping, ...],
    open_file: Callable[[], ByteSource],
    may_set_secrets: Callable[[], bool],
    fields: tuple[str, ...] | None = None,
) -> tuple[Target, Reader]:
    """Opens the file and decides what each column fills, before any row is read. `fields` are those of a file that is
    known to hold no record, and is not opened.

    Raises:
        DataInvalid: the reader's and the mapping's reasons; FailedPrecondition: ENTITY_NOT_IMPORTABLE, KEY_NOT_USABLE.
    """
    _importable(entity)
    key = _key(entity, options.key_fields, mode)

    def reopen() -> Reader:
        return _Nothing(fields) if fields is not None else open_reader(open_file, options)

    reader = reopen()
    if not reader.header:  # an empty JSON array has no names: it stands for no row, whatever its fields
        _require_no_record(reader)
        reader = _Nothing(_meant(entity, mapping))
    columns = map_columns(
        _names(reader.header, options),
        entity,
        mapping,
        may_set_secrets=may_set_secrets,
        catalog=catalog,
        key=key,
        new_rows_only=mode is ImportType.ADDITIVE,
    )
    _updatable(entity, columns, key, mode)
    return Target(number, entity, options, mode, reopen, columns, key), reader


def _require_no_record(reader: Reader) -> None:
    """Records without any field (`[1, 2]`, `[{}]`) are not taken for none: REPLACE would empty the table for them.

    Raises:
        DataInvalid: FILE_NOT_JSON.
    """
    if any(len(batch.rows) or batch.broken for batch in reader.batches()):
        raise DataInvalid("file: found records none of which has a field, expected objects", reason="FILE_NOT_JSON")


def _meant(entity: Entity, mapping: tuple[FieldMapping, ...]) -> tuple[str, ...]:
    """The columns that a file without names and records must be taken to have: those the mapping speaks of, and every
    other field's own."""
    named = dict.fromkeys(m.column for m in mapping if m.column is not None)
    filled, folded = {m.field for m in mapping}, {name.casefold() for name in named}
    own = (f.name for f in entity.stored if not f.secret and f.name not in filled)
    return (*named, *(name for name in own if name.casefold() not in folded))


def _names(header: tuple[str, ...], options: ImportOptions) -> tuple[str, ...]:
    """The formula guard stands before names too."""
    return tuple(n.removeprefix("'") for n in header) if options.csv.undo_formula_guard else header


def _updatable(entity: Entity, columns: Columns, key: tuple[str, ...], mode: ImportType) -> None:
    """What the database always numbers itself can stand in new rows, or tell a row; no update may change it."""
    touched = [*(m.field for m in columns.mapped), *columns.fixed]
    if len(touched) > MOST_TOUCHED and mode is not ImportType.ADDITIVE:
        raise FailedPrecondition(
            f"{entity.name}: found {len(touched)} columns to write, expected at most {MOST_TOUCHED} for {mode}, which"
            " keeps new and old values side by side",
            reason="ENTITY_NOT_IMPORTABLE",
        )
    fixed = [f.name for f in touched if f.identity == "ALWAYS" and f.column not in key]
    if fixed and mode is not ImportType.ADDITIVE:
        raise DataInvalid(
            f"{entity.name}: found a column for {fixed[0]!r}, which is always an identity: {mode} can only find rows by"
            " it, as their key",
            reason="FIELD_NOT_SETTABLE",
        )


def not_importable(entity: Entity) -> str:
    """Why nothing can be imported into the entity; empty when something can."""
    clash = [f.column for f in entity.stored if f.column in OWN_COLUMNS]
    if clash:
        return f"it has a column {clash[0]!r}, which staging needs"
    if len(entity.stored) > MOST_FIELDS:
        return f"it has over {MOST_FIELDS:,} columns"
    return entity.refused or ("it has rules, which would change what is written" if entity.has_rules else "")


def _importable(entity: Entity) -> None:
    if why := not_importable(entity):
        raise FailedPrecondition(f"{entity.name}: {why}", reason="ENTITY_NOT_IMPORTABLE")


def _key(entity: Entity, wanted: tuple[str, ...], mode: ImportType) -> tuple[str, ...]:
    """The columns that tell which row is meant: those asked for, in the order of their unique key, or the entity's."""
    if not wanted:
        if mode is not ImportType.ADDITIVE and not entity.key:
            raise FailedPrecondition(
                f"{entity.name}: found no key, {mode} needs one to tell rows by", reason="KEY_NOT_USABLE"
            )
        return entity.key
    fields = [_known(entity, name) for name in wanted]
    for key in entity.unique:
        if sorted(key.columns) != sorted(f.column for f in fields) or key.partial or key.deferrable:
            continue
        if mode is ImportType.REPLACE and any(f.nullable for f in fields):
            raise FailedPrecondition(
                f"{entity.name}: found {', '.join(wanted)}, which may be NULL: REPLACE could not tell such rows",
                reason="KEY_NOT_USABLE",
            )
        return key.columns
    raise FailedPrecondition(
        f"{entity.name}: found no unique key over {', '.join(wanted)}; expected the fields of one, neither partial nor"
        " deferrable",
        reason="KEY_NOT_USABLE",
    )


def _known(entity: Entity, name: str) -> Field:
    field = entity.field(name)
    if field is None:
        raise DataInvalid(f"key_fields: {name!r} is no field of {entity.name}", reason="KEY_NOT_USABLE")
    if field.secret:
        raise DataInvalid(f"key_fields: {name!r} is secret, rows cannot be told by it", reason="KEY_NOT_USABLE")
    return field
