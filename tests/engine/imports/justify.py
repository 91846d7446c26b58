"""What a plan says, judged by the model: every record in one place, every verdict deserved, no rule left violated."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from engine.imports.model import RowError
from tests.engine.imports.model import (
    BAD,
    REFERENCES,
    TABLES,
    Assigned,
    Change,
    Row,
    State,
    Table,
    Unique,
    changed,
    is_missing,
    own_violations,
    violations,
)
from tests.engine.imports.scenarios import Step

FIRST = 2
"""The number of a file's first record; its header is record 1."""

CELL_CODES = {"INVALID_VALUE", "OUT_OF_RANGE", "TOO_LONG", "INVALID_CHOICE"}


@dataclass
class Judged:
    """One plan over one state, as the model reads it with the plan's own verdicts."""

    step: Step
    state: State
    verdicts: dict[int, list[RowError]]
    records: dict[int, Row] = field(default_factory=dict)
    """Record by number: the touched columns' values, BAD where there is none."""
    matches: dict[int, Row] = field(default_factory=dict)
    """The table's row of the record's key."""
    kinds: dict[int, str] = field(default_factory=dict)
    """INSERT, UPDATE, UNCHANGED of each record taken."""
    gone: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def table(self) -> Table:
        return TABLES[self.step.table]

    def key_of(self, row: Row) -> tuple[Any, ...] | None:
        """None where it tells no row of the table."""
        key = tuple(row.get(c) for c in self.step.key)
        return None if None in key or BAD in key else key

    def would_be(self, number: int) -> Row:
        """The whole row that a record would make."""
        if number in self.matches:
            return self.matches[number] | self.records[number]
        defaults = {c.name: Assigned() if c.identity else c.default for c in self.table.columns}
        return defaults | self.records[number]

    def change(self, without: frozenset[int] = frozenset(), kept: frozenset[Any] = frozenset()) -> Change:
        """What is to be done, without some records and deletes."""
        taken = {n: k for n, k in self.kinds.items() if n not in without}
        return Change(
            self.step.table,
            self.step.key,
            [k for k in self.gone if k not in kept],
            [(self.key_of(self.records[n]) or (), self.records[n]) for n, k in taken.items() if k == "UPDATE"],
            [self.would_be(n) for n, k in taken.items() if k == "INSERT"],
        )

    def counts(self) -> dict[str, int]:
        failed = sum(1 for v in self.verdicts.values() if any(e.severity == "FAILED" for e in v))
        kinds = list(self.kinds.values())
        return {
            "total": len(self.records), "insert": kinds.count("INSERT"), "update": kinds.count("UPDATE"),
            "unchanged": kinds.count("UNCHANGED"), "skip": len(self.verdicts) - failed, "failed": failed,
            "delete": len(self.gone),
        }  # fmt: skip


def judge(step: Step, state: State, errors: list[RowError]) -> Judged:
    """Sorts the records by the plan's verdicts."""
    verdicts: dict[int, list[RowError]] = defaultdict(list)
    for error in errors:
        verdicts[error.row].append(error)
    judged = Judged(step, state, dict(verdicts))
    table = judged.table
    at = {judged.key_of(r): r for r in state[step.table]}
    for number, cells in enumerate(step.records, FIRST):
        row = {c: table.column(c).parse(cell) for c, cell in zip(step.columns, cells, strict=True)}
        row |= {c: table.column(c).parse(cell) for c, cell in step.constants.items()}
        judged.records[number] = row
        key = judged.key_of(row)
        if key is not None and key in at:
            judged.matches[number] = at[key]
        if number not in verdicts:
            there = judged.matches.get(number)
            same = there is not None and all(there[c] == v for c, v in row.items())
            judged.kinds[number] = "INSERT" if there is None else "UNCHANGED" if same else "UPDATE"
    if step.mode == "REPLACE":
        named = {judged.key_of(r) for r in judged.records.values()}
        judged.gone = [k for k in map(judged.key_of, state[step.table]) if k is not None and k not in named]
    return judged


def require_just(judged: Judged) -> dict[tuple[str, str], int]:
    """Asserts that the rows taken violate nothing and that every other row deserves its verdict.

    Gives the rows that foreign keys reach, by (constraint, action).
    """
    for number in judged.kinds:
        assert BAD not in judged.records[number].values(), f"record {number} is taken and cannot be read"
        added = judged.step.mode != "ADDITIVE" or judged.kinds[number] == "INSERT"
        assert added, f"ADDITIVE takes record {number}, which the table has"
    keys = [judged.key_of(judged.records[n]) for n in judged.kinds]
    assert len([k for k in keys if k]) == len({k for k in keys if k}), "a key is taken twice"
    after, reached = changed(judged.state, judged.change())
    assert not (found := violations(after)), f"the rows taken violate {found}"
    for number, errors in judged.verdicts.items():
        for error in errors:
            assert _deserved(judged, after, number, error), f"record {number} does not deserve {error}"
    _require_no_ring(judged, after)
    return reached


def _deserved(judged: Judged, after: State, number: int, error: RowError) -> bool:
    record, table, code = judged.records[number], judged.table, error.code
    names = error.field.split(",")
    if code in CELL_CODES:
        return record[names[0]] is BAD
    if code == "REQUIRED":
        new = number not in judged.matches and names[0] not in record
        column = table.column(names[0])
        return column.needed if new else record.get(names[0]) is None and not column.nullable
    if code == "CHECK_VIOLATED":
        return BAD in record.values() or bool(own_violations(table, judged.would_be(number)))
    earlier = [n for n in judged.kinds if n < number]
    if code == "DUPLICATE_IN_FILE":
        return any(judged.key_of(judged.records[n]) == judged.key_of(record) for n in earlier)
    if code == "KEY_EXISTS":
        return judged.step.mode == "ADDITIVE" and number in judged.matches
    if code == "UNIQUE_CYCLE":
        return bool(waits_for(judged, number) & {n for n in judged.verdicts if _has(judged, n, code)})
    if code == "REFERENCE_MISSING":
        row, own = judged.would_be(number), [r for r in REFERENCES if r.source == table.name]
        alone = changed(after, Change(table.name, judged.step.key, [], [(judged.key_of(record) or (), record)], []))[0]
        to_own = [r for r in own if r.target == table.name]
        return (
            any(is_missing(after, r, row) or is_missing(alone, r, row) for r in own)
            or any(r.value(row) == r.referred(judged.would_be(n)) for r in to_own for n in _in_doubt(judged))
            or _hangs_on_itself(judged, number)
        )
    unique = next(u for u in table.uniques if set(u.columns) == set(names))
    value = unique.value(judged.would_be(number))
    if code == "UNIQUE_IN_FILE":
        return value is not None and any(unique.value(judged.would_be(n)) == value for n in earlier)
    assert code == "UNIQUE_TAKEN", f"unknown code {code}"
    doubtful = {unique.value(judged.matches[n]) for n in _in_doubt(judged) if n in judged.matches}
    return value is not None and value in _standing(judged, unique, number) | doubtful


def _in_doubt(judged: Judged) -> set[int]:
    """Records that stand because one before them, of a value of theirs, does not: what was refused for them beforehand
    may have been the reason why."""
    found = set()
    rules = [*judged.table.uniques, Unique("key", judged.step.key)]
    for other in (n for n, e in judged.verdicts.items() if e[0].code in _DEPENDENT):
        values = [u.value(judged.would_be(other)) for u in rules]
        found |= {
            n for n in judged.kinds
            if n > other and any(v and u.value(judged.would_be(n)) == v for u, v in zip(rules, values, strict=True))
        }  # fmt: skip
    return found


_DEPENDENT = ("REFERENCE_MISSING", "UNIQUE_TAKEN", "UNIQUE_CYCLE")


def _has(judged: Judged, number: int, code: str) -> bool:
    return any(e.code == code for e in judged.verdicts[number])


def _standing(judged: Judged, unique: Unique, number: int) -> set[Any]:
    """Unique values of the table's own rows, the record's excepted, that the plan leaves where they are."""
    own = judged.matches.get(number)
    new = {id(judged.matches[n]): judged.would_be(n) for n, kind in judged.kinds.items() if kind == "UPDATE"}
    rows = [r for r in judged.state[judged.step.table] if r is not own and judged.key_of(r) not in judged.gone]
    return {unique.value(r) for r in rows} & {unique.value(new.get(id(r), r)) for r in rows}


def waits_for(judged: Judged, number: int) -> set[int]:
    """Records that would free a unique value that this one wants."""
    found, row = set(), judged.would_be(number)
    for unique in judged.table.uniques:
        if unique.deferrable:
            continue
        for other, there in judged.matches.items():
            moves = unique.value(judged.would_be(other)) != unique.value(there)
            if there is not judged.matches.get(number) and moves and unique.value(there) == unique.value(row):
                found.add(other)
    return found


def _hangs_on_itself(judged: Judged, number: int) -> bool:
    """Whether it refers to a row that moves away if it is taken and stays if it is not: some refused record moves that
    row, and waits, straight or through others, for a value that this one would free."""
    refused = {n for n in judged.verdicts if n in judged.matches}
    moved, ends = set[int](), {number}
    while ends:
        ends = {n for n in refused - moved if waits_for(judged, n) & ends}
        moved |= ends
    row = judged.would_be(number)
    own = [r for r in REFERENCES if r.source == r.target == judged.step.table]
    return any(r.value(row) == r.referred(judged.matches[n]) for r in own for n in moved)


def _require_no_ring(judged: Judged, after: State) -> None:
    """Rows that only refer to one another must not all be refused for that."""
    ring = {n for n in judged.verdicts if all(e.code == "REFERENCE_MISSING" for e in judged.verdicts[n])}
    while ring:
        rows = [judged.would_be(n) for n in ring]
        before = [judged.key_of(judged.matches[n]) for n in ring if n in judged.matches]
        others = [r for r in after[judged.step.table] if judged.key_of(r) not in before]
        whole = after | {judged.step.table: [*others, *rows]}
        own = [r for r in REFERENCES if r.source == judged.step.table]
        lost = {n for n in ring if any(is_missing(whole, r, judged.would_be(n)) for r in own)}
        lost |= {n for n in ring if _hangs_on_itself(judged, n)}
        lost |= ring & set(judged.verdicts) if _in_doubt(judged) else set()
        assert lost, f"the records {ring} are refused for references that they fulfil themselves"
        ring -= lost
