"""Random sequences of imports, as data: made from a seed, printed readably, made smaller while they still fail."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tests.engine.imports.model import TABLES, Row, State, Table, violations

TRIGGERS = ("alter", "alter after", "null", "raise", "raise late", "null delete", "raise delete")
_VALUES: dict[str, tuple[Any, ...]] = {
    "name": ("x", "y", "z"), "email": (*"pqrstuvwxy", None, None), "slot": (*range(1, 10), None),
    "a": (1, 2, 3, 4, None),
    "b": (1, 2, 3, None), "low": (0, 1, 2), "price": (0, 3, 4, 5, None, None), "colour": ("RED", "GREEN"),
    "word": ("ab", "cd", None), "kind": ("k1", "k2", "k3", "k4", "k5", "k6", "k7"), "code": tuple(range(1, 10)),
    "tag": tuple("abcdefghij"), "note": ("d", "e", "f", "d", "n", None), "line": (1, 2, 3, None),
    "place": (1, 2, 3, None), "label": ("s", "t"),
}  # fmt: skip
_BAD = {"int": "1x", "public.colour": "BLUE", "public.code": "Zz9"}


@dataclass(frozen=True)
class Move:
    """What another session does between plan and apply."""

    table: str
    verb: str
    key: Any
    values: Row = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One import."""

    table: str
    mode: str
    columns: tuple[str, ...]
    records: tuple[tuple[str | None, ...], ...]
    options: dict[str, Any]
    constants: dict[str, str] = field(default_factory=dict)
    trigger: str = ""
    moves: tuple[Move, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(self.options.get("key_fields", ())) or TABLES[self.table].key

    @property
    def touched(self) -> tuple[str, ...]:
        return (*self.columns, *self.constants)

    @property
    def data(self) -> bytes:
        lines = [",".join(self.columns), *(",".join("" if c is None else c for c in r) for r in self.records)]
        return "".join(f"{line}\n" for line in lines).encode()

    def __str__(self) -> str:
        shown = [f"import into {self.table}: {self.mode} {self.options}"]
        if self.constants:
            shown.append(f"  constants {self.constants}")
        if self.trigger:
            shown.append(f"  with a trigger: {self.trigger}")
        shown += [f"  | {line}" for line in self.data.decode().splitlines()]
        shown += [f"  then {m.verb} {m.table} {m.key} {m.values or ''}" for m in self.moves]
        return "\n".join(shown)


@dataclass(frozen=True)
class Scenario:
    rows: State
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        rows = [f"{table}: {row}" for table, found in self.rows.items() for row in found]
        return "\n".join([*rows, *map(str, self.steps)])

    def smaller(self) -> Iterator[Scenario]:
        """This one with something left out: a step, a record, a column, a row, a move, a trigger, an option."""
        for i in range(len(self.steps)):
            yield replace(self, steps=(*self.steps[:i], *self.steps[i + 1 :]))
        for i, step in enumerate(self.steps):
            for less in _smaller_steps(step):
                yield replace(self, steps=(*self.steps[:i], less, *self.steps[i + 1 :]))
        for table, rows in self.rows.items():
            for i in range(len(rows)):
                yield replace(self, rows=valid(self.rows | {table: rows[:i] + rows[i + 1 :]}))


def _smaller_steps(step: Step) -> Iterator[Step]:
    if step.trigger:
        yield replace(step, trigger="")
    for i in range(len(step.moves)):
        yield replace(step, moves=(*step.moves[:i], *step.moves[i + 1 :]))
    for i in range(len(step.records)):
        yield replace(step, records=(*step.records[:i], *step.records[i + 1 :]))
    for name in step.constants:
        yield replace(step, constants={n: v for n, v in step.constants.items() if n != name})
    for i, name in enumerate(step.columns):
        if name not in step.key and len(step.columns) > 1:
            records = tuple((*r[:i], *r[i + 1 :]) for r in step.records)
            yield replace(step, columns=(*step.columns[:i], *step.columns[i + 1 :]), records=records)
    for name in step.options:
        if name != "key_fields":
            yield replace(step, options={n: v for n, v in step.options.items() if n != name})


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool], until: float) -> Scenario:
    """The smallest that still fails and is found before the monotonic clock shows `until`."""
    again = True
    while again:
        again = False
        for less in scenario.smaller():
            if not less.steps or time.monotonic() > until:
                continue
            if fails(less):
                scenario, again = less, True
                break
    return scenario


def valid(rows: State) -> State:
    """As many of the rows as the rules allow, in their order."""
    found: State = {name: [] for name in TABLES}
    for table in TABLES:
        for row in rows[table]:
            found[table].append(row)
            if violations(found, table):
                found[table].pop()
    return found


def scenario(seed: int) -> Scenario:
    """The scenario of a seed: always the same."""
    rng = random.Random(seed)
    rows = {name: [_row(rng, table, key) for key in range(1, 9)] for name, table in TABLES.items()}
    if rng.random() < 0.6:
        rows["bill"] = []  # they keep most rows from going
    rows = valid(rows)
    return Scenario(rows, tuple(_step(rng, rows) for _ in range(rng.randint(1, 2))))


def _value(rng: random.Random, table: Table, column: str) -> Any:
    if column in ("boss", "owner", "payer", "twin"):
        return rng.choice((1, 2, 3, 4, 5, 9, *[None] * 7) if column != "owner" else (1, 2, 3, 4))
    if column == "id":
        return rng.randint(1, 12)
    if (table.name, column) == ("item", "kind"):
        return rng.choice((None, "k1", "k2", "k3"))
    if (table.name, column) == ("toy", "pet"):
        return rng.choice((*"abcdefgh", None))
    return rng.choice(_VALUES[column])


def _row(rng: random.Random, table: Table, number: int) -> Row:
    row = {c: _value(rng, table, c) for c in table.names}
    return row | {c: number for c in table.names if c == "id"}


def _step(rng: random.Random, rows: State) -> Step:
    table = TABLES[rng.choice(("item",) * 6 + ("pet", "pet", "kind", "kind", "seat", "seat"))]
    mode = rng.choice(("ADDITIVE", "UPSERT", "UPSERT", "REPLACE", "REPLACE"))
    key = rng.choice((table.key, table.key, *table.keys()))
    if mode == "REPLACE" and any(table.column(c).nullable for c in key):
        key = table.key
    columns = _columns(rng, table, key, mode)
    options: dict[str, Any] = {"error_budget": rng.choice((99, 99, 99, 99, 99, 2)), "on_drift": rng.choice(_DRIFTS)}
    if key != table.key:
        options["key_fields"] = list(key)
    if mode == "REPLACE":
        options["max_deletes"] = rng.choice((99, 99, 0))
    if refused := rng.choice((None, "SKIP", "SKIP", "ABORT")):
        options["on_refused"] = refused
    if rng.random() < 0.8:
        options["allow_cascade"] = ["pet", "toy", "item", "bill"] if rng.random() < 0.8 else ["pet"]
    constants = {}
    if "note" not in columns and rng.random() < 0.3:
        constants = {"note": rng.choice(("c", "n"))}
    kept = rng.random() < 0.8 and mode == "REPLACE"
    moves = tuple(_move(rng, table, rows) for _ in range(rng.randint(1, 3))) if rng.random() < 0.35 else ()
    return Step(
        table.name, mode, columns, tuple(_records(rng, table, key, rows, columns, kept)), options, constants,
        rng.choice(TRIGGERS) if rng.random() < 0.3 else "", moves,
    )  # fmt: skip


_DRIFTS = ("ABORT", "SKIP_MOVED")


def _columns(rng: random.Random, table: Table, key: tuple[str, ...], mode: str) -> tuple[str, ...]:
    share = rng.choice((0.3, 0.7, 1.0))
    always = {c.name for c in table.columns if c.identity == "ALWAYS" and c.name not in key and mode != "ADDITIVE"}
    needed = {c.name for c in table.columns if c.needed} if mode == "ADDITIVE" or rng.random() < 0.8 else set()
    taken = {c for c in table.names if c in key or c in needed or rng.random() < share} - always
    return tuple(rng.sample(sorted(taken), len(taken)))


def _records(
    rng: random.Random, table: Table, key: tuple[str, ...], rows: State, columns: tuple[str, ...], kept: bool
) -> Iterator[tuple[str | None, ...]]:
    """Rows of the table, changed a little: values of their own, of one another, new ones, bad ones."""
    there = rows[table.name]
    chosen: list[Row] = [r for r in there if rng.random() < (0.8 if kept else 0.6)]
    if rng.random() < 0.4:
        chosen = _shifted(rng, table, key, columns, chosen)
    chosen += [_row(rng, table, rng.randint(5, 12)) for _ in range(rng.choice((0, 1, 3, 6)))]
    rng.shuffle(chosen)
    moving, bad = rng.choice((0.0, 0.1, 0.4)), rng.choice((0.0, 0.03, 0.1))
    for row in chosen:
        record: list[str | None] = []
        for name in columns:
            value, dice, column = row[name], rng.random(), table.column(name)
            if dice < moving and there and (name not in key or dice < moving / 4):
                value = rng.choice(there)[name]
            elif dice < moving + 0.15 and name not in key:
                value = _value(rng, table, name)
            cell = None if value is None else str(value)
            if rng.random() < (bad / 5 if name in key else bad):
                cell = rng.choice((None, _BAD.get(column.type, "w")))
            record.append(cell)
        if any(cell is not None for cell in record):
            yield tuple(record)


def _shifted(
    rng: random.Random, table: Table, key: tuple[str, ...], columns: tuple[str, ...], rows: list[Row]
) -> list[Row]:
    """Each row with the unique value of the next; the last with a new one, or the first one's."""
    fit = [u for u in table.uniques if u.columns != key and set(u.columns) <= set(columns)]
    if not fit or len(rows) < 2:
        return rows
    wanted = rng.choice(fit).columns
    last = rng.choice([rows[0], _row(rng, table, rng.randint(9, 12))])
    return [row | {c: other[c] for c in wanted} for row, other in zip(rows, [*rows[1:], last], strict=True)]


def _move(rng: random.Random, table: Table, rows: State) -> Move:
    if rng.random() < 0.25:
        table = rng.choice(list(TABLES.values()))
    there = rows[table.name]
    key = table.key[0]
    verb = rng.choice(("insert", "update", "update", "delete"))
    if verb == "insert" or not there:
        row = _row(rng, table, rng.randint(1, 9))
        return Move(table.name, "insert", row[key], row)
    at = rng.choice(there)[key]
    if verb == "delete":
        return Move(table.name, verb, at)
    column = rng.choice([c.name for c in table.columns if c.identity != "ALWAYS"])
    return Move(table.name, verb, at, {column: _value(rng, table, column)})
