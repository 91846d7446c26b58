"""Entities as every stage sees them, wherever they come from.

A field is an SQL expression over the relation under the alias `t`, so that a row inside a jsonb document can be a field
like a column is. Names are the caller's; `column` is PostgreSQL's, unquoted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from psycopg import sql

from engine.errors import NotFound

# A default that is one literal, with or without a cast. Everything else (a function, CURRENT_DATE, an operator) may
# give another value at apply than it gave at planning, so it is left to the server and the plan names the field.
_CONSTANT_DEFAULT = re.compile(
    r"""^\(?(?:'(?:[^']|'')*'|[-+]?\d+(?:\.\d+)?|true|false|NULL)\)?(?:::[\w\s."\[\](),]+)?$""", re.IGNORECASE
)


@dataclass(frozen=True)
class Field:
    """One field. `type` is PostgreSQL's own spelling, qualified; `base` the `pg_type.typname` behind domains,
    qualified where the installation's type is called like one of PostgreSQL's own."""

    name: str
    column: str
    type: str
    base: str
    category: str
    """`pg_type.typcategory` of `base`: S for text, N for numbers …"""
    nullable: bool
    storage_type: str
    """`type` without its domains: what the domain's values are stored as."""
    bare_type: str = "text"
    """`storage_type` without its length or precision: a cast to it cuts nothing off."""
    element: str = ""
    """The `bare_type` of an array's elements, `enum` for any enum; empty where it is no array."""
    comparable: bool = True
    """Whether PostgreSQL can tell two values equal and order them (a default btree operator class)."""
    receives: bool = True
    """Whether its type has a function that reads COPY's binary format; a table with one that has none takes text."""
    collation: str = ""
    """Qualified and quoted, where it is not the type's own."""
    equality: str = "="
    """The operator its unique indexes go by; qualified where search_path = pg_catalog would find another, or none."""
    default: str | None = None
    identity: str = ""
    """ALWAYS, BY DEFAULT or empty."""
    generated: bool = False
    labels: tuple[str, ...] = ()
    """The enum's labels in order."""
    modifier: int = -1
    """`atttypmod` of the base type: lengths, precision and scale."""
    is_domain: bool = False
    text_cast: bool = False
    """Whether a cast from text is a function of its own, which may read other texts than the type's input function."""
    secret: bool = False
    fill: str | None = None
    """What a new row gets in a secret field that an import may not set."""
    fill_sql: str | None = None
    """The same as an SQL expression, evaluated for each row: for a secret that must be unique."""
    filterable: bool = False

    @property
    def expression(self) -> sql.Composable:
        """Reads the field from the relation `t`."""
        return sql.SQL("t.") + sql.Identifier(self.column)

    @property
    def server_assigned(self) -> bool:
        """Whether a row that does not set the field gets a value only the server knows, and only at apply."""
        if self.generated:
            return True
        if self.identity:
            return True
        return self.default is not None and not _CONSTANT_DEFAULT.match(self.default)


@dataclass(frozen=True)
class UniqueKey:
    """A unique index over plain columns. `usable` as a key: every column NOT NULL, not deferrable, not partial."""

    name: str
    columns: tuple[str, ...]
    primary: bool
    usable: bool
    partial: bool = False
    nulls_distinct: bool = True
    deferrable: bool = False
    """Judged at the statement's or transaction's end, so that values may be exchanged."""


@dataclass(frozen=True)
class ForeignKey:
    name: str
    columns: tuple[str, ...]
    target_schema: str
    target_table: str
    target_columns: tuple[str, ...]
    on_update: str
    on_delete: str
    match_full: bool = False


@dataclass(frozen=True)
class Check:
    """A CHECK of the table; `expression` speaks of bare column names."""

    name: str
    expression: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Trigger:
    name: str
    row: bool
    timing: str
    events: tuple[str, ...]
    fires: bool


@dataclass(frozen=True)
class Entity:
    """One operable set of rows."""

    name: str
    schema: str
    table: str
    fields: tuple[Field, ...]
    key: tuple[str, ...]
    """Columns of the key, in index order; empty for an entity without one."""
    group: str = ""
    unique: tuple[UniqueKey, ...] = ()
    expression_keys: tuple[str, ...] = ()
    """Names of unique indexes on expressions, of keys without overlaps and of exclusion constraints: only the table
    itself can judge them."""
    references: tuple[ForeignKey, ...] = ()
    referenced_by: tuple[str, ...] = ()
    """Names of the entities that hold a foreign key to this one."""
    checks: tuple[Check, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    has_rules: bool = False
    partitioned: bool = False
    owned: bool = False
    """Whether the service's own role owns the table, directly or through membership."""
    estimated_rows: int = 0
    size_bytes: int = 0
    """Of the table with its indexes and, of a partitioned one, with its parts."""
    created_field: str = ""
    updated_field: str = ""
    status_field: str = ""
    refused: str = ""
    """Why nothing can be done with it; empty when something can."""

    @cached_property
    def relation(self) -> sql.Composable:
        """The qualified name; ONLY, unless partitioned: an inheritance parent stands for its own rows."""
        name = sql.Identifier(self.schema, self.table)
        return name if self.partitioned else sql.SQL("ONLY ") + name

    @cached_property
    def qualified(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table)

    @cached_property
    def stored(self) -> tuple[Field, ...]:
        """The fields a row fingerprint covers: all that are not generated, in catalog order."""
        return tuple(field for field in self.fields if not field.generated)

    def field(self, name: str) -> Field | None:
        return self._by_name.get(name)

    def column(self, column: str) -> Field:
        return self._by_column[column]

    @cached_property
    def _by_name(self) -> dict[str, Field]:
        return {field.name: field for field in self.fields}

    @cached_property
    def _by_column(self) -> dict[str, Field]:
        return {field.column: field for field in self.fields}

    @cached_property
    def fingerprint(self) -> str:
        """Changes with anything a plan may rely on: columns, types, defaults, keys, checks, triggers, secrets."""
        record = asdict(self)
        del record["estimated_rows"], record["size_bytes"]
        return _digest(record)

    @cached_property
    def definition(self) -> str:
        """Changes with what PostgreSQL knows of the table itself: not with catalog.toml, its owner, or what refers to
        it. The same in another installation's catalog."""
        record = asdict(self)
        for name in _NOT_ITS_OWN:
            del record[name]
        for field in record["fields"]:
            for name in _REFINED:
                del field[name]
        return _digest(record)


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


_REFINED = ("secret", "fill", "fill_sql", "filterable", "name")
_NOT_ITS_OWN = (
    "name", "group", "referenced_by", "owned", "estimated_rows", "size_bytes", "created_field", "updated_field",
    "status_field", "refused",
)  # fmt: skip


@dataclass(frozen=True)
class NotCovered:
    """A relation of the configured schemas that is no entity, and why."""

    name: str
    why: str


class Catalog:
    """The entities of one moment."""

    def __init__(self, entities: Iterable[Entity], not_covered: Iterable[NotCovered] = ()) -> None:
        self._entities = {entity.name: entity for entity in sorted(entities, key=lambda e: e.name)}
        self.not_covered = tuple(not_covered)

    def entities(self) -> list[Entity]:
        return list(self._entities.values())

    def entity(self, name: str) -> Entity:
        """The entity called `name`.

        Raises:
            NotFound: ENTITY_UNKNOWN.
        """
        try:
            return self._entities[name]
        except KeyError:
            raise NotFound(
                f"entity: found {name[:80]!r}, expected one of the {len(self._entities)} that ListEntities names",
                reason="ENTITY_UNKNOWN",
                metadata={"entity": name[:80]},
            ) from None

    def members(self, group: str) -> list[Entity]:
        """The entities of the group; none where there is no such group."""
        return [entity for entity in self.entities() if group and entity.group == group]

    def named(self, names: Iterable[str], permit: Callable[[str], None]) -> list[Entity]:
        """The entities that these names of entities or groups mean, in the order of the names, each once. `permit` is
        asked of a name that is no group's, before it is looked up: who may not learns not whether it exists.

        Raises:
            NotFound: ENTITY_UNKNOWN; what `permit` raises.
        """
        found: dict[str, Entity] = {}
        for name in names:
            members = self.members(name)
            if not members:
                permit(name)
                members = [self.entity(name)]
            found |= {entity.name: entity for entity in members if entity.name not in found}
        return list(found.values())

    def of_table(self, schema: str, table: str) -> Entity | None:
        return next((e for e in self._entities.values() if (e.schema, e.table) == (schema, table)), None)
