"""How the definition of an entity differs from the one in a backup, and what a restore does about it: by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from psycopg import sql

from engine.backups.archive import Archive
from engine.backups.manifest import BackedEntity, Column
from engine.catalog import Catalog, Entity, Field
from engine.errors import FailedPrecondition, Violation
from engine.imports.sqltext import Temp
from engine.restores.model import Notice, Rename


@dataclass(frozen=True)
class Pair:
    """A column of the backup and the column it fills now."""

    old: Column
    new: Field

    @property
    def retyped(self) -> bool:
        """Also where a domain of the same name has another type behind it."""
        return (self.old.type, self.old.storage_type) != (self.new.type, self.new.storage_type)

    def value(self, alias: str) -> sql.Composed:
        """The backup's value, of the relation `alias`, as a value of the column's type now."""
        column = sql.SQL("{}.{}").format(sql.SQL(alias), sql.Identifier(self.old.name))
        if not self.retyped:
            return sql.Composed([column])
        return sql.SQL("{}::text::{}").format(column, sql.SQL(self.new.type))


@dataclass
class Fit:
    """How a backup's entity fits the table that is there."""

    backed: BackedEntity
    live: Entity
    pairs: list[Pair] = field(default_factory=list)
    differences: list[Notice] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Why it does not fit; empty when it does."""

    @property
    def straight(self) -> bool:
        """Whether the stream can go into the table as it is: every column of it is there, and of the same type, and the
        table has no other. Then the manifest's fingerprint must be the table's."""
        names = [pair.new.column for pair in self.pairs]
        return (
            len(self.pairs) == len(self.backed.columns)
            and not any(pair.retyped for pair in self.pairs)
            and names == [f.column for f in self.live.stored]
        )

    @property
    def same(self) -> bool:
        """Whether the definition is the very same, so that rows which were in the table fit it."""
        return self.backed.schema_fingerprint == self.live.definition

    def selected(self, staged: Temp) -> sql.Composed:
        """A subquery of the staged rows with the names and types of the table now."""
        columns = [sql.SQL("{} AS {}").format(p.value("b"), sql.Identifier(p.new.column)) for p in self.pairs]
        return sql.SQL("(SELECT {} FROM {} b)").format(sql.SQL(", ").join(columns), staged)


def renames_by_entity(renames: Sequence[Rename]) -> dict[str, dict[str, str]]:
    """By entity, what a column of the backup is called now."""
    found: dict[str, dict[str, str]] = {}
    for rename in renames:
        found.setdefault(rename.entity, {})[rename.old] = rename.new
    return found


def fits_of(archive: Archive, catalog: Catalog, names: Sequence[str], renames: Sequence[Rename]) -> list[Fit]:
    """How each entity of the backup fits the table that is there, in the manifest's order.

    Raises:
        FailedPrecondition: SCHEMA_INCOMPATIBLE, with every fault as a violation.
    """
    fits, faults = [], []
    for backed in archive.manifest.entities:
        if backed.entity not in names:
            continue
        live = catalog.of_table(backed.schema, backed.table)
        if live is None:
            faults.append(Violation(backed.entity, f"{backed.schema}.{backed.table} is not there, or not to be seen"))
            continue
        if live.refused:
            faults.append(Violation(live.name, live.refused))
        found = fit(backed, live, [r for r in renames if r.entity == backed.entity])
        faults += [Violation(live.name, fault) for fault in found.refused]
        fits.append(found)
    if faults:
        raise incompatible(faults)
    return fits


def fit(backed: BackedEntity, live: Entity, renames: Sequence[Rename]) -> Fit:
    """Judges columns by name; what only rows can tell is the plan's to look at."""
    found = Fit(backed, live)
    renamed = {r.old: r.new for r in renames}
    columns = {f.column: f for f in live.fields}
    known = set(backed.column_names)
    for old, new in renamed.items():
        if old not in known:
            found.refused.append(f"renames: the backup of {backed.entity} has no column {old!r}")
        if new and new not in columns:
            found.refused.append(f"renames: {live.name} has no column {new!r}")
    dropped = [_pair(found, column, renamed.get(column.name, column.name), columns) for column in backed.columns]
    gone = [column for column in dropped if column is not None]
    filled = {pair.new.column for pair in found.pairs}
    if len(filled) < len(found.pairs):
        found.refused.append(f"renames: two columns of {backed.entity} would fill one of {live.name}")
    added = [f for f in live.stored if f.column not in filled]
    for extra in added:
        _added(found, extra)
    for column in gone:
        _gone(found, column, [f for f in added if f.storage_type == column.storage_type], column.name in renamed)
    if live.has_rules and not found.straight and not found.refused:
        found.refused.append(f"{live.name}: it has rules, which would rewrite what its changed columns need")
    if not found.same and not found.differences and not found.refused:
        found.differences.append(
            _notice("DEFINITION_CHANGED", f"{live.name}: its columns are the same, something else of it has changed")
        )
    return found


def _pair(found: Fit, column: Column, name: str, columns: Mapping[str, Field]) -> Column | None:
    """Adds the pair; gives the column back that fills none."""
    new = columns.get(name)
    if new is None or new.generated:
        return column
    pair = Pair(column, new)
    found.pairs.append(pair)
    if pair.retyped:
        was, now = (column.type, new.type) if column.type != new.type else (column.storage_type, new.storage_type)
        message = f"{found.live.name}.{new.column}: {was} in the backup is read as {now}"
        found.differences.append(_notice("COLUMN_RETYPED", message, column=new.column))
    elif column.name != new.column:
        message = f"{found.live.name}.{new.column}: gets the values of {column.name!r} in the backup"
        found.differences.append(_notice("COLUMN_RENAMED", message, column=new.column))
    return None


def _added(found: Fit, new: Field) -> None:
    if not new.nullable and new.default is None and not new.identity:
        found.refused.append(
            f"{found.live.name}.{new.column}: it came after the backup and is NOT NULL without a default"
        )
        return
    gets = "its default" if new.default is not None or new.identity else "NULL"
    message = f"{found.live.name}.{new.column}: it came after the backup; restored rows get {gets}"
    found.differences.append(_notice("COLUMN_ADDED", message, column=new.column))


def _gone(found: Fit, column: Column, likely: list[Field], said: bool) -> None:
    now = next((f for f in found.live.fields if f.column == column.name), None)
    if now is not None:  # it is there, and generated
        message = f"{found.live.name}.{column.name}: it is generated now; the backup's values of it are left out"
        found.differences.append(_notice("COLUMN_DROPPED", message, column=column.name))
        return
    if likely and not said:
        names = ", ".join(repr(f.column) for f in likely)
        found.refused.append(
            f"{found.live.name}.{column.name}: it is gone and {names} of its type came; say by renames which it is now,"
            " or by an empty name that it is none"
        )
        return
    message = f"{found.live.name}.{column.name}: it is gone; the backup's values of it are left out"
    found.differences.append(_notice("COLUMN_DROPPED", message, column=column.name))


def _notice(code: str, message: str, **metadata: str) -> Notice:
    return {"code": code, "message": message, "severity": "WARNING", "metadata": metadata}


def incompatible(faults: Sequence[Violation]) -> FailedPrecondition:
    return FailedPrecondition(
        f"restore: the backup does not fit the tables in {len(faults)} places; nothing was touched. The first:"
        f" {faults[0].subject}: {faults[0].description}",
        reason="SCHEMA_INCOMPATIBLE",
        violations=list(faults),
    )
