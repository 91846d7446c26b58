"""A database in plain Python, as far as imports touch it: tables, their rules, and what foreign keys do by themselves.

It shares no line with the engine. A state is `{table: [row]}`, a row `{column: int | str | None}`; a value that only
the server knows is an `Assigned` of its own, equal to nothing else.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Value = Any
Row = dict[str, Value]
State = dict[str, list[Row]]


class Assigned:
    """A value that the server assigns."""

    def __repr__(self) -> str:
        return "<assigned>"


class Bad:
    """What a cell holds that is no value of its type."""


BAD = Bad()


@dataclass(frozen=True)
class Column:
    name: str
    type: str = "int"
    nullable: bool = True
    default: Value = None
    identity: str = ""

    def parse(self, cell: str | None) -> Value:
        """The value of a cell; BAD where it is none."""
        if cell is None:
            return None
        if self.type == "int":
            return int(cell) if re.fullmatch(r"-?\d{1,9}", cell) else BAD
        if self.type == "public.colour":
            return cell if cell in ("RED", "GREEN") else BAD
        if self.type == "public.code":
            return cell if re.fullmatch("[a-z]{1,3}", cell) else BAD
        return cell

    @property
    def needed(self) -> bool:
        return not self.nullable and self.default is None and not self.identity

    @property
    def ddl(self) -> str:
        words = [self.name, self.type]
        if self.identity:
            words.append(f"GENERATED {self.identity} AS IDENTITY")
        elif self.default is not None:
            words.append(f"DEFAULT {self.default!r}")
        return " ".join([*words, *([] if self.nullable else ["NOT NULL"])])


@dataclass(frozen=True)
class Unique:
    name: str
    columns: tuple[str, ...]
    nulls_distinct: bool = True
    deferrable: bool = False

    def value(self, row: Row) -> tuple[Value, ...] | None:
        """None where the row is equal to no other."""
        value = tuple(row[c] for c in self.columns)
        return None if self.nulls_distinct and None in value else value

    @property
    def ddl(self) -> str:
        nulls = "" if self.nulls_distinct else "NULLS NOT DISTINCT "
        later = " DEFERRABLE" if self.deferrable else ""
        return f"CONSTRAINT {self.name} UNIQUE {nulls}({', '.join(self.columns)}){later}"


@dataclass(frozen=True)
class Check:
    name: str
    expression: str
    columns: tuple[str, ...]
    holds: Callable[..., bool]

    def violated(self, row: Row) -> bool:
        values = [row[c] for c in self.columns]
        return None not in values and not self.holds(*values)


@dataclass(frozen=True)
class Reference:
    name: str
    source: str
    columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]
    on_delete: str = "NO ACTION"
    on_update: str = "NO ACTION"
    deferred: bool = False

    def value(self, row: Row) -> tuple[Value, ...] | None:
        value = tuple(row[c] for c in self.columns)
        return None if None in value else value

    def referred(self, row: Row) -> tuple[Value, ...]:
        return tuple(row[c] for c in self.target_columns)

    @property
    def ddl(self) -> str:
        later = " DEFERRABLE INITIALLY DEFERRED" if self.deferred else ""
        return (
            f"ALTER TABLE public.{self.source} ADD CONSTRAINT {self.name} FOREIGN KEY ({', '.join(self.columns)})"
            f" REFERENCES public.{self.target} ({', '.join(self.target_columns)})"
            f" ON DELETE {self.on_delete} ON UPDATE {self.on_update}{later};"
        )


@dataclass(frozen=True)
class Table:
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    uniques: tuple[Unique, ...]
    checks: tuple[Check, ...] = ()

    @property
    def names(self) -> list[str]:
        return [c.name for c in self.columns]

    def column(self, name: str) -> Column:
        return next(c for c in self.columns if c.name == name)

    def keys(self) -> list[tuple[str, ...]]:
        """What rows may be told by."""
        return [self.key, *(u.columns for u in self.uniques if not u.deferrable and u.columns != self.key)]

    @property
    def ddl(self) -> str:
        checks = [f"CONSTRAINT {c.name} CHECK ({c.expression})" for c in self.checks]
        key = [f"CONSTRAINT {self.name}_pkey PRIMARY KEY ({', '.join(self.key)})"]
        uniques = [u.ddl for u in self.uniques if u.columns != self.key]
        return (
            f"CREATE TABLE public.{self.name} ({', '.join([*(c.ddl for c in self.columns), *key, *uniques, *checks])});"
        )


NOTE = Column("note", "text", default="d")
"""What triggers of the test look at."""

_TABLES = (
    Table(
        "kind",
        (Column("kind", "text", nullable=False), Column("code", nullable=False), NOTE),
        ("kind",),
        (Unique("kind_pkey", ("kind",)), Unique("kind_code", ("code",))),
    ),
    Table(
        "item",
        (
            Column("id", nullable=False, identity="BY DEFAULT"),
            Column("name", "text", nullable=False),
            Column("email", "text"),
            Column("slot"),
            Column("a"),
            Column("b"),
            Column("boss"),
            Column("low", default=1),
            Column("price"),
            Column("colour", "public.colour", nullable=False, default="RED"),
            Column("word", "public.code"),
            Column("kind", "text"),
            NOTE,
        ),
        ("id",),
        (
            Unique("item_pkey", ("id",)),
            Unique("item_email", ("email",)),
            Unique("item_slot", ("slot",), deferrable=True),
            Unique("item_ab", ("a", "b")),
        ),
        (
            Check("item_price", "price >= 0", ("price",), lambda p: p >= 0),
            Check("item_low", "low <= price", ("low", "price"), lambda low, price: low <= price),
        ),
    ),
    Table(
        "pet",
        (
            Column("id", nullable=False, identity="ALWAYS"),
            Column("tag", "text", nullable=False),
            Column("owner", nullable=False),
            NOTE,
        ),
        ("id",),
        (Unique("pet_pkey", ("id",)), Unique("pet_tag", ("tag",))),
    ),
    Table("toy", (Column("id", nullable=False), Column("pet", "text"), NOTE), ("id",), (Unique("toy_pkey", ("id",)),)),
    Table(
        "bill",
        (Column("id", nullable=False), Column("payer"), Column("a"), Column("b"), NOTE),
        ("id",),
        (Unique("bill_pkey", ("id",)),),
    ),
    Table(
        "seat",
        (
            Column("id", nullable=False, identity="BY DEFAULT"),
            Column("line"),
            Column("place"),
            Column("twin"),
            Column("label", "text", nullable=False, default="s"),
            NOTE,
        ),
        ("id",),
        (Unique("seat_pkey", ("id",)), Unique("seat_place", ("line", "place"), nulls_distinct=False)),
    ),
)
TABLES = {t.name: t for t in _TABLES}
REFERENCES = (
    Reference("item_boss", "item", ("boss",), "item", ("id",)),
    Reference("item_kind", "item", ("kind",), "kind", ("kind",), on_update="CASCADE"),
    Reference("pet_owner", "pet", ("owner",), "item", ("id",), on_delete="CASCADE", on_update="CASCADE"),
    Reference("toy_pet", "toy", ("pet",), "pet", ("tag",), on_delete="SET NULL", on_update="CASCADE"),
    Reference("bill_payer", "bill", ("payer",), "item", ("id",)),
    Reference("bill_ab", "bill", ("a", "b"), "item", ("a", "b")),
    Reference("seat_twin", "seat", ("twin",), "seat", ("id",), deferred=True),
)
DDL = "\n".join(
    [
        "CREATE TYPE public.colour AS ENUM ('RED', 'GREEN');",
        "CREATE DOMAIN public.code AS text CHECK (VALUE ~ '^[a-z]{1,3}$');",
        *(t.ddl for t in _TABLES),
        *(r.ddl for r in REFERENCES),
    ]
)


def violations(state: State, table: str | None = None) -> list[str]:
    """Every rule of `state` that does not hold, of one table or of all."""
    return [v for t in _TABLES if table in (None, t.name) for v in _violations(state, t)]


def _violations(state: State, table: Table) -> Iterator[str]:
    rows = state[table.name]
    for row in rows:
        yield from own_violations(table, row)
    for unique in table.uniques:
        seen = set()
        for row in rows:
            if (value := unique.value(row)) is not None:
                if value in seen:
                    yield f"{unique.name}: {value} stands twice"
                seen.add(value)
    for reference in REFERENCES:
        if reference.source == table.name:
            for row in rows:
                if is_missing(state, reference, row):
                    yield f"{reference.name}: no row for {reference.value(row)}"


def own_violations(table: Table, row: Row) -> list[str]:
    """What a row violates by itself."""
    missing = [f"{c.name}: NULL" for c in table.columns if row[c.name] is None and not c.nullable]
    return missing + [f"{c.name}: does not hold" for c in table.checks if c.violated(row)]


def is_missing(state: State, reference: Reference, row: Row) -> bool:
    value = reference.value(row)
    return value is not None and value not in {reference.referred(r) for r in state[reference.target]}


@dataclass
class Change:
    """What a plan does to one table: old rows by identity of their key values, whole new ones."""

    table: str
    key: tuple[str, ...]
    deletes: list[tuple[Value, ...]]
    updates: list[tuple[tuple[Value, ...], Row]]
    """The key, and the touched columns."""
    inserts: list[Row]


def changed(state: State, change: Change) -> tuple[State, dict[tuple[str, str], int]]:
    """The state after, and how many rows foreign keys reach by (constraint, action)."""
    after = copy.deepcopy(state)
    at = {tuple(r[c] for c in change.key): r for r in after[change.table]}
    gone = [at[k] for k in change.deletes if k in at]
    new = {id(at[k]): values for k, values in change.updates if k in at}
    reached: dict[tuple[str, str], int] = {}
    _deleted(after, change.table, gone, set(map(id, gone)), new, reached)
    _rekeyed(after, change.table, [(r, new[id(r)]) for r in after[change.table] if id(r) in new], reached)
    for row in after[change.table]:
        row.update(new.get(id(row), {}))
    after[change.table] += change.inserts
    return after, reached


def _deleted(
    state: State, table: str, gone: list[Row], going: set[int], new: dict[int, Row], reached: dict[tuple[str, str], int]
) -> None:
    state[table] = [r for r in state[table] if id(r) not in going]
    for reference in REFERENCES:
        if reference.target != table or not gone or reference.on_delete == "NO ACTION":
            continue
        lost = {reference.referred(r) for r in gone}
        hit = [r for r in state[reference.source] if reference.value(r) in lost]
        hit = [r for r in hit if not set(new.get(id(r), {})) & set(reference.columns)]
        if hit:
            reached[reference.name, f"DELETE {reference.on_delete}"] = len(hit)
        if reference.on_delete == "CASCADE":
            _deleted(state, reference.source, hit, set(map(id, hit)), {}, reached)
        else:
            for row in hit:
                row.update(dict.fromkeys(reference.columns))


def _rekeyed(state: State, table: str, updates: Iterable[tuple[Row, Row]], reached: dict[tuple[str, str], int]) -> None:
    for reference in REFERENCES:
        if reference.target != table or reference.on_update == "NO ACTION":
            continue
        moves = {reference.referred(old): reference.referred(old | new) for old, new in updates}
        moves = {old: new for old, new in moves.items() if old != new}
        hit = [r for r in state[reference.source] if reference.value(r) in moves]
        if hit:
            reached[reference.name, f"UPDATE {reference.on_update}"] = len(hit)
        for row, value in [(r, moves[reference.value(r) or ()]) for r in hit]:
            row.update(zip(reference.columns, value, strict=True))
