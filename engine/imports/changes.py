"""What a plan does to rows, as people look at it: page by page, filtered, or all of it as a CSV file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.catalog import Catalog, Entity
from engine.errors import InvalidRequest
from engine.exports.query import GUARDED
from engine.imports.model import ChangeKind, FieldChange, RowChange, RowError, Severity
from engine.imports.planfile import Plan
from engine.imports.shown import MASK
from engine.paging import MAX_BYTES, Paging

_KINDS = (
    ChangeKind.INSERT, ChangeKind.UPDATE, ChangeKind.DELETE, ChangeKind.UNCHANGED, ChangeKind.SKIP,
)  # fmt: skip

_RUN = re.compile(GUARDED)
"""Texts that a spreadsheet may run, or that begin with the mark against it."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""A whole number is none of them, though it begins like one: `-2+3+cmd|…` is none."""

HEADER = "entity,row,kind,key,field,old,new\n"


class Budget:
    """What one answer may cost: rows taken, bytes of them, lines looked through for them."""

    LINES = 50_000
    """A rare code in a long list: what is looked through takes half a second at the most."""

    def __init__(self, limit: int) -> None:
        self._rows, self._bytes, self._lines = limit, MAX_BYTES, self.LINES

    @property
    def room(self) -> bool:
        return self._rows > 0 and self._bytes > 0 and self._lines > 0

    def spend(self, line: Sequence[str | None], *, taken: bool) -> bool:
        """Counts a line; gives `taken` back."""
        self._lines -= 1
        if taken:
            self._rows -= 1
            self._bytes -= sum(len(cell or "") for cell in line)
        return taken


@dataclass(frozen=True)
class _Stream:
    """One stream of a plan and how its lines are read."""

    name: str
    kind: ChangeKind
    entity: Entity
    key: tuple[str, ...]
    columns: tuple[str, ...]
    secret: frozenset[str]
    """Columns that were secret when the plan was made, or are now."""
    changing: tuple[str, ...] = ()
    """Of CASCADE: columns that a foreign key may set, which stand again as they become."""

    def read(self, line: Sequence[str | None]) -> RowChange:
        cells = list(line)
        names, row = self.columns, int(cells[0] or 0)
        if self.kind is ChangeKind.UPDATE:
            new, old = cells[3 : 3 + len(names)], cells[3 + len(names) :]
            values = dict(zip(names, new, strict=True))
            fields = [self._change(n, o, v) for n, o, v in zip(names, old, new, strict=True) if o != v]
        elif self.kind is ChangeKind.CASCADE:
            values = dict(zip(names, cells[4 : 4 + len(names)], strict=True))
            if cells[2] == "DELETE CASCADE":
                fields = [self._change(n, v, None) for n, v in values.items()]
            else:
                becomes = zip(self.changing, cells[4 + len(names) :], strict=True)
                fields = [self._change(n, values[n], v) for n, v in becomes if v != values[n]]
        else:
            values = dict(zip(names, cells[1 if self.kind is ChangeKind.INSERT else 2 :], strict=True))
            fields = []
            if self.kind is ChangeKind.INSERT:
                fields = [self._change(n, None, v) for n, v in values.items()]
            elif self.kind is ChangeKind.DELETE:
                fields = [self._change(n, v, None) for n, v in values.items()]
        key = {n: MASK if n in self.secret else values[n] or "" for n in self.key if n in values}
        return RowChange(row, self.kind, key, tuple(fields), self.entity.name)

    def _change(self, column: str, old: str | None, new: str | None) -> FieldChange:
        if column not in self.secret:
            return FieldChange(column, old, new)
        return FieldChange(column, old and MASK, new and MASK, masked=True)


class PlanView:
    """A plan as it was made: names are those of then, and what was secret then or is now is masked."""

    def __init__(self, plan: Plan, catalog: Catalog) -> None:
        self._plan = plan
        self._streams = list(self._read_streams(catalog))

    def _read_streams(self, catalog: Catalog) -> Iterator[_Stream]:
        for number, head in enumerate(self._plan.head["entities"]):
            entity, key, stored = catalog.entity(head["name"]), tuple(head["key"]), tuple(head["stored"])
            secret = _secret(head, entity)
            columns = {
                ChangeKind.INSERT: tuple(head["planned"]),
                ChangeKind.UPDATE: tuple(head["touched"]),
                ChangeKind.DELETE: stored,
            }
            for kind in _KINDS:
                yield _Stream(f"{number}.{kind}", kind, entity, key, columns.get(kind, key), secret)
        for number, head in enumerate(self._plan.head["cascades"]):
            entity, key, stored = catalog.entity(head["name"]), tuple(head["key"]), tuple(head["stored"])
            secret = _secret(head, entity)
            name, changing = f"{number}.CASCADE", tuple(head["changing"])
            yield _Stream(name, ChangeKind.CASCADE, entity, key, stored, secret, changing)

    def page(
        self, paging: Paging, kinds: Sequence[ChangeKind] = (), entity: str = "", field: str = ""
    ) -> tuple[list[tuple[int, RowChange]], str]:
        """One page, each change with its place, and the next page's token."""
        start, at = position(paging), 0
        budget = Budget(paging.limit)
        found: list[tuple[int, RowChange]] = []
        for stream in self._streams:
            rows = self._plan.rows(stream.name)
            wanted = (not kinds or stream.kind in kinds) and entity in ("", stream.entity.name)
            if field and stream.kind is not ChangeKind.UPDATE:
                wanted = False
            if wanted and start < at + rows:
                for number, line in self._plan.numbered(stream.name, max(0, start - at)):
                    if not budget.room:
                        return found, paging.token_at((at + number,))
                    change = stream.read(line)
                    if budget.spend(line, taken=not field or any(f.field == field for f in change.fields)):
                        found.append((at + number, change))
            at += rows
        return found, ""

    def as_csv(self) -> Iterator[tuple[bytes, int]]:
        """The whole plan: one line for each field that gets a value or loses one, and one for a row without any; with
        how many rows have come so far."""
        yield HEADER.encode(), 0
        done, lines = 0, []
        for stream in self._streams:
            for _, line in self._plan.numbered(stream.name, 0):
                lines += _csv_lines(stream.read(line))
                done += 1
                if len(lines) > 2_000:
                    yield "".join(lines).encode(), done
                    lines = []
        yield "".join(lines).encode(), done


def _secret(head: dict[str, Any], entity: Entity) -> frozenset[str]:
    return frozenset(head["secret"]) | {f.column for f in entity.fields if f.secret}


def page_of_errors(
    plans: Sequence[tuple[Plan, str]],
    paging: Paging,
    severities: Sequence[Severity] = (),
    code: str = "",
    entity: str = "",
) -> tuple[list[RowError], str, int]:
    """One page of what is wrong with records, entity by entity in row order; the next token; how many there are.

    Args:
        plans: the plan with stream kind ERRORS and, where apply has left rows out, what it kept with kind LATE.
    """
    start, at = position(paging), 0
    budget = Budget(paging.limit)
    found: list[RowError] = []
    token = ""
    for plan, kind in plans:
        for number, head in enumerate(plan.head["entities"]):
            name = f"{number}.{kind}"
            rows = plan.rows(name)
            if not token and start < at + rows and entity in ("", head["name"]):
                for line_number, line in plan.numbered(name, max(0, start - at)):
                    if not budget.room:
                        token = paging.token_at((at + line_number,))
                        break
                    error = _row_error(line, head["name"])
                    wanted = (not severities or error.severity in severities) and code in ("", error.code)
                    if budget.spend(line, taken=wanted):
                        found.append(error)
            at += rows
    return found, token, at


def position(paging: Paging) -> int:
    """Where a page begins: the number of its first line over all streams."""
    after = paging.position()
    if after is None:
        return 0
    if len(after) != 1 or not isinstance(after[0], int) or after[0] < 0:
        raise InvalidRequest("page_token: expected one of this list", reason="PAGE_TOKEN_INVALID")
    return after[0]


def _row_error(line: Sequence[str | None], entity: str) -> RowError:
    row, severity, field, code, message, value = (cell or "" for cell in line)
    return RowError(int(row), field, code, message, value, Severity(severity), entity)


def _csv_lines(change: RowChange) -> list[str]:
    start = ",".join(
        [_cell(change.entity), str(change.row), change.kind.value, _cell(json.dumps(change.key, ensure_ascii=False))]
    )
    if not change.fields:
        return [f"{start},,,\n"]
    return [f"{start},{_cell(f.field)},{_cell(f.old)},{_cell(f.new)}\n" for f in change.fields]


def _cell(value: str | None) -> str:
    """NULL is nothing, the empty text two quotes, as in every CSV of ours. It is opened in spreadsheets: what they
    would run gets a `'` before it."""
    if value is None:
        return ""
    if _RUN.match(value) and not _NUMBER.fullmatch(value):
        value = "'" + value
    if value == "" or any(c in value for c in ',"\r\n'):
        return '"' + value.replace('"', '""') + '"'
    return value
