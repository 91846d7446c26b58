"""Runs a scenario against a real engine and a real table, and holds every step against the model."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psycopg
from psycopg import sql

from engine.db.models import ImportRow
from engine.errors import DataOpsError
from engine.imports.model import ChangeKind, FieldMapping
from engine.paging import Paging
from tests.engine.imports.justify import Judged, judge, require_just
from tests.engine.imports.model import REFERENCES, TABLES, Assigned, Row, State, changed, violations
from tests.engine.imports.scenarios import Move, Scenario, Step
from tests.world import World

LATE = {"REFUSED_AT_APPLY", "PARENT_SKIPPED", "SKIP_MOVED"}
_SEQUENCES = ("item", "pet", "seat")

_BODIES = {
    "alter": "NEW.note := upper(NEW.note); RETURN NEW;",
    "alter after": "IF pg_trigger_depth() = 1 THEN UPDATE public.{0} SET note = note || '!' WHERE {1} = NEW.{1};"
    " END IF; RETURN NULL;",
    "null": "IF NEW.note = 'n' THEN RETURN NULL; END IF; RETURN NEW;",
    "raise": "IF NEW.note = 'n' THEN RAISE EXCEPTION 'no'; END IF; RETURN NEW;",
    "raise late": "IF NEW.note = 'n' THEN RAISE EXCEPTION 'no'; END IF; RETURN NULL;",
    "null delete": "IF OLD.note = 'n' THEN RETURN NULL; END IF; RETURN OLD;",
    "raise delete": "IF OLD.note = 'n' THEN RAISE EXCEPTION 'no'; END IF; RETURN OLD;",
}
_WHEN = {
    "alter after": "TRIGGER {} AFTER INSERT OR UPDATE",
    "raise late": "CONSTRAINT TRIGGER {} AFTER INSERT OR UPDATE",
    "null delete": "TRIGGER {} BEFORE DELETE",
    "raise delete": "TRIGGER {} BEFORE DELETE",
}


class Checker:
    """One database for many scenarios, emptied before each."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._connection = psycopg.connect(world.resources.platform.dsn, autocommit=True)
        self._connection.execute("SET client_min_messages = warning")
        self.seen: Counter[str] = Counter()
        """What has been met, so that a test can tell that it met everything."""

    def close(self) -> None:
        self._connection.close()

    def run(self, scenario: Scenario) -> None:
        """Raises:
        AssertionError: the engine did what the model does not.
        """
        self._reset(scenario.rows)
        for step in scenario.steps:
            self._trigger(step)
            try:
                self._step(step)
            finally:
                self._sql(f"DROP TRIGGER IF EXISTS tested ON public.{step.table}")

    # --- one import

    def _step(self, step: Step) -> None:
        before = self._state()
        sequences = self._positions()
        row = self._plan(step)
        assert (self._state(), self._positions()) == (before, sequences), "planning has changed the database"
        if row.status == "FAILED":
            self.seen[reason := self._world.reason(row)] += 1
            judged = judge(step, before, self._world.errors(row))
            assert _may_fail(judged, reason), f"the plan failed: {row.error}"
            return
        assert row.status == "AWAITING_APPROVAL", (row.status, row.error)
        judged = judge(step, before, self._world.errors(row))
        self.seen.update(e.code for errors in judged.verdicts.values() for e in errors)
        reached = require_just(judged)
        self.seen.update(f"{name}: {action}" for name, action in reached)
        self._require_planned(row, judged, reached)
        now = self._meanwhile(step, before)
        row = self._apply(row, judged)
        self.seen[f"{row.status} {self._world.reason(row) if row.error else ''}"] += 1
        if row.status != "COMPLETED":
            assert self._state() == now, "the apply failed and has changed the database"
            assert _may_refuse(judged, now, self._world.reason(row)), f"the apply failed: {row.error}"
            return
        self._require_applied(row, judged, now, reached)

    def _plan(self, step: Step) -> ImportRow:
        # every column is mapped by its name; constants fill fields that the file lacks
        mapping = tuple(FieldMapping(name, constant=value) for name, value in step.constants.items())
        return self._world.plan(step.table, step.data, import_type=step.mode, mapping=mapping, **step.options)

    def _require_planned(self, row: ImportRow, judged: Judged, reached: dict[tuple[str, str], int]) -> None:
        assert row.plan_summary is not None
        counts = {name: row.plan_summary["counts"][name] for name in judged.counts()}
        assert counts == judged.counts(), f"the plan counts {counts}"
        changes, _ = self._world.imports.changes(self._world.caller, row.id, Paging(1000, "", "t"))
        kinds = {c.row: c.kind.value for _, c in changes if c.kind.value in ("INSERT", "UPDATE", "UNCHANGED")}
        assert kinds == judged.kinds, f"the plan lists {kinds}"
        for _, change in changes:
            if change.kind is ChangeKind.UPDATE:
                fields = {f.field: (f.old, f.new) for f in change.fields}
                there, record = judged.matches[change.row], judged.records[change.row]
                assert fields == {c: (_text(there[c]), _text(v)) for c, v in record.items() if there[c] != v}
        gone = sorted(tuple(c.key.values()) for _, c in changes if c.kind is ChangeKind.DELETE)
        assert gone == sorted(tuple(map(_text, k)) for k in judged.gone), f"the plan deletes {gone}"
        told = {(n, a): rows for c in row.plan_summary["cascades"] for n, a, rows in c["actions"]}
        assert told == reached, f"the plan foresees {told}, the model {reached}"
        allowed = judged.step.options.get("allow_cascade", ())
        assert all(c["name"] in allowed for c in row.plan_summary["cascades"]), "a cascade that is not allowed"

    def _apply(self, row: ImportRow, judged: Judged) -> ImportRow:
        assert row.plan_summary is not None
        if not row.plan_summary["deletes_need_confirmation"]:
            return self._world.apply(row)
        for wrong in (None, len(judged.gone) + 1):
            try:
                self._world.apply(row, deletes=wrong)
            except DataOpsError as error:
                assert error.reason == "DELETES_NOT_CONFIRMED"
            else:
                raise AssertionError(f"{len(judged.gone)} deletes were confirmed by {wrong}")
        return self._world.apply(row, deletes=len(judged.gone))

    def _require_applied(self, row: ImportRow, judged: Judged, now: State, reached: dict[tuple[str, str], int]) -> None:
        late = [e for e in self._world.errors(row) if e.code in LATE]
        self.seen.update(e.code for e in late)
        kept = {k for k in judged.gone if _moved(judged, now, k, judged.table.names)}
        left_out = frozenset(e.row for e in late)
        after, really = changed(now, judged.change(left_out, frozenset(kept)))
        assert late or really == reached, f"foreign keys have reached {really}, and were planned to reach {reached}"
        _altered(judged, after, left_out)
        assert _comparable(self._state(), after) == _comparable(after, after), (
            f"the tables hold {self._state()}, expected {after}"
        )
        for error in late:
            assert _late_deserved(judged, now, after, error), f"record {error.row} does not deserve {error}"
        _require_relied(judged, now, left_out)
        self._require_report(row, judged, late, len(kept))
        self._require_sequences()

    def _require_report(self, row: ImportRow, judged: Judged, late: list[Any], kept: int) -> None:
        out = {e.row for e in late}
        kinds = Counter(k for n, k in judged.kinds.items() if n not in out)
        skipped = len({e.row for e in late if e.severity == "SKIPPED"})
        planned = judged.counts()
        expected = {
            "total_records": planned["total"], "inserted": kinds["INSERT"], "updated": kinds["UPDATE"],
            "unchanged": kinds["UNCHANGED"], "skipped": planned["skip"] + skipped,
            "failed": planned["failed"] + len(out) - skipped, "deleted": planned["delete"] - kept,
        }  # fmt: skip
        assert row.report is not None
        report = {name: row.report[name] for name in expected}
        assert report == expected, f"the report says {report}, expected {expected}"

    def _require_sequences(self) -> None:
        """The next key that a sequence gives is free."""
        for (table, at), rows in zip(self._positions().items(), self._state_of(_SEQUENCES).values(), strict=True):
            next_ = at[0] + at[1]
            assert next_ > max((r["id"] for r in rows), default=0), f"the next id of {table}, {next_}, is taken"

    # --- the database

    def _sql(self, query: str) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []

    def _state(self) -> State:
        return self._state_of(tuple(TABLES))

    def _state_of(self, names: tuple[str, ...]) -> State:
        found: State = {}
        for name in names:
            table = TABLES[name]
            rows = self._sql(f"SELECT {', '.join(table.names)} FROM public.{name} ORDER BY {', '.join(table.key)}")
            found[name] = [dict(zip(table.names, r, strict=True)) for r in rows]
        return found

    def _positions(self) -> dict[str, tuple[int, int]]:
        parts = [f"SELECT last_value, is_called::int FROM public.{name}_id_seq" for name in _SEQUENCES]
        return dict(zip(_SEQUENCES, [self._sql(part)[0] for part in parts], strict=True))

    def _reset(self, rows: State) -> None:
        self._sql(f"TRUNCATE {', '.join(f'public.{name}' for name in TABLES)} RESTART IDENTITY")
        with self._connection.transaction():
            for table in ("kind", "item", "pet", "toy", "bill", "seat"):
                # parents of one's own may stand later
                self._sql(f"ALTER TABLE public.{table} DISABLE TRIGGER ALL")
                for row in rows[table]:
                    self._insert(table, row)
                self._sql(f"ALTER TABLE public.{table} ENABLE TRIGGER ALL")
        self._forward()

    def _insert(self, table: str, row: Row) -> None:
        columns = sql.SQL(", ").join(map(sql.Identifier, row))
        self._connection.execute(
            sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})").format(
                sql.Identifier("public", table), columns, sql.SQL(", ").join(map(sql.Literal, row.values()))
            )
        )

    def _forward(self) -> None:
        """Sequences past the rows there are."""
        for name in _SEQUENCES:
            self._sql(
                f"SELECT setval('public.{name}_id_seq', greatest((SELECT max(id) FROM public.{name}),"
                f" (SELECT last_value FROM public.{name}_id_seq))) WHERE EXISTS (SELECT FROM public.{name})"
            )

    def _trigger(self, step: Step) -> None:
        if not step.trigger:
            return
        body = _BODIES[step.trigger].format(step.table, TABLES[step.table].key[0])
        when = _WHEN.get(step.trigger, "TRIGGER {} BEFORE INSERT OR UPDATE").format("tested")
        late = " DEFERRABLE INITIALLY DEFERRED" if step.trigger == "raise late" else ""
        self._sql(
            f"CREATE OR REPLACE FUNCTION public.tested() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;"
            f"CREATE {when} ON public.{step.table}{late} FOR EACH ROW EXECUTE FUNCTION public.tested()"
        )

    def _meanwhile(self, step: Step, before: State) -> State:
        if not step.moves:
            return before
        for move in step.moves:
            try:
                self._do(move)
            except psycopg.Error:
                self.seen["move refused"] += 1
        self._forward()
        return self._state()

    def _do(self, move: Move) -> None:
        if move.verb == "insert":
            self._insert(move.table, move.values)
            return
        table, key = sql.Identifier("public", move.table), sql.Identifier(TABLES[move.table].key[0])
        where = sql.SQL("WHERE {} = {}").format(key, sql.Literal(move.key))
        if move.verb == "delete":
            self._connection.execute(sql.SQL("DELETE FROM {} {}").format(table, where))
            return
        for column, value in move.values.items():
            self._connection.execute(
                sql.SQL("UPDATE {} SET {} = {} {}").format(table, sql.Identifier(column), sql.Literal(value), where)
            )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _comparable(state: State, model: State) -> dict[str, Any]:
    """Rows as a set of their values; of tables where the server assigns keys, those keys left out of new rows."""
    found = {}
    for name, rows in state.items():
        unknown = {c for r in model[name] for c, v in r.items() if isinstance(v, Assigned)}
        if not unknown:
            found[name] = Counter(tuple(r.items()) for r in rows)
            continue
        known = {r["id"] for r in model[name] if not isinstance(r["id"], Assigned)}
        found[name] = Counter(tuple((c, v) for c, v in r.items() if c not in unknown or r["id"] in known) for r in rows)
    return found


def _refused_by_trigger(judged: Judged, row: Row) -> bool:
    return judged.step.trigger in ("null", "raise", "raise late") and row["note"] == "n"


def _altered(judged: Judged, after: State, left_out: frozenset[int]) -> None:
    """What the trigger makes of the rows that are written."""
    if judged.step.trigger not in ("alter", "alter after"):
        return
    written = [n for n, k in judged.kinds.items() if k != "UNCHANGED" and n not in left_out]
    wanted = [judged.records[n] for n in written]
    inserted = [id(r) for r in after[judged.step.table][len(after[judged.step.table]) - _inserts(judged, left_out) :]]
    updated = {judged.key_of(r) for r in wanted} - {None}
    for row in after[judged.step.table]:
        if id(row) in inserted or judged.key_of(row) in updated:
            note = row["note"]
            row["note"] = note if note is None else note.upper() if judged.step.trigger == "alter" else note + "!"


def _inserts(judged: Judged, left_out: frozenset[int]) -> int:
    return sum(1 for n, k in judged.kinds.items() if k == "INSERT" and n not in left_out)


# --- what may be refused, and why


def _may_fail(judged: Judged, reason: str) -> bool:
    step = judged.step
    if reason == "ERROR_BUDGET_EXCEEDED":
        require_just(judged)
        return judged.counts()["failed"] > step.options["error_budget"]
    if reason == "KEY_UNREADABLE":
        return step.mode == "REPLACE" and any(judged.key_of(r) is None for r in judged.records.values())
    if reason in ("CASCADE_NOT_ALLOWED", "ROWS_REFERENCED"):
        return something_refers(judged)
    if reason in ("COLUMN_MISSING", "COLUMNS_REFUSED"):
        missing = {c.name for c in judged.table.columns if c.needed} - set(step.touched)
        return step.mode == "ADDITIVE" and bool(missing)
    return False


def something_refers(judged: Judged) -> bool:
    """A row refers to one that goes, or that may get another key."""
    rows = judged.state[judged.step.table]
    gone = [r for r in rows if judged.key_of(r) in judged.gone]
    for reference in (r for r in REFERENCES if r.target == judged.step.table):
        moves = {n: reference.referred(there) for n, there in judged.matches.items()}
        left = {value for n, value in moves.items() if reference.referred(judged.would_be(n)) != value}
        allowed = reference.on_update == "CASCADE" and reference.source in judged.step.options.get("allow_cascade", ())
        if not allowed and any(reference.value(r) in left for r in judged.state[reference.source]):
            return True
    tables, seen = [(judged.step.table, gone)], set()
    while tables:
        table, lost = tables.pop()
        for reference in REFERENCES:
            if reference.target != table or not lost:
                continue
            values = {reference.referred(r) for r in lost}
            hit = [r for r in judged.state[reference.source] if reference.value(r) in values]
            if hit and reference.on_delete != "CASCADE":
                return True
            if hit and (reference.source not in judged.step.options.get("allow_cascade", ())):
                return True
            if reference.name not in seen:
                seen.add(reference.name)
                tables.append((reference.source, hit))
    return False


def _may_refuse(judged: Judged, now: State, reason: str) -> bool:
    moved = now != judged.state
    if reason == "PLAN_STALE":
        return moved
    if reason != "ROW_REFUSED":
        return False
    written = [judged.would_be(n) for n, k in judged.kinds.items() if k != "UNCHANGED"]
    if moved or any(_refused_by_trigger(judged, r) for r in written):
        return True
    gone = [r for r in judged.state[judged.step.table] if judged.key_of(r) in judged.gone]
    return "delete" in judged.step.trigger and any(r["note"] == "n" for r in gone)


def _moved(judged: Judged, now: State, key: Any, columns: list[str]) -> bool:
    """Whether the row of this key has other values in `columns` than when it was planned, or is not there."""
    was, is_ = (
        [tuple(r[c] for c in columns) for r in state[judged.step.table] if judged.key_of(r) == key]
        for state in (judged.state, now)
    )
    return was != is_


def _relied(judged: Judged) -> list[str]:
    table = judged.table
    return [*judged.step.touched, *table.key, *(c for u in table.uniques for c in u.columns)]


def _require_relied(judged: Judged, now: State, left_out: frozenset[int]) -> None:
    """A completed apply found all that its plan relied on."""
    for number in judged.matches:
        skipped = any(e.code == "KEY_EXISTS" for e in judged.verdicts.get(number, ()))
        strict = judged.step.options["on_drift"] == "ABORT"
        if (number in judged.kinds or (skipped and strict)) and number not in left_out:
            key = judged.key_of(judged.records[number])
            assert not _moved(judged, now, key, _relied(judged)), f"the row of record {number} has moved"
    if judged.step.mode == "REPLACE" and judged.step.options["on_drift"] == "ABORT":
        keys = [sorted(map(repr, map(judged.key_of, s[judged.step.table]))) for s in (judged.state, now)]
        assert keys[0] == keys[1], "REPLACE went on beside rows that had come or gone"
        assert not any(_moved(judged, now, k, judged.table.names) for k in judged.gone), "a row that goes has moved"


def _late_deserved(judged: Judged, now: State, after: State, error: Any) -> bool:
    number = error.row
    row, key = judged.would_be(number), judged.key_of(judged.records[number])
    if error.code == "SKIP_MOVED":
        if number in judged.matches:
            return _moved(judged, now, key, _relied(judged))
        there = now[judged.step.table]
        return any(u.value(row) is not None and u.value(row) in map(u.value, there) for u in judged.table.uniques)
    current = next((r for r in now[judged.step.table] if key is not None and judged.key_of(r) == key), None)
    if current is not None:
        row = current | judged.records[number]
    if _refused_by_trigger(judged, row):
        return True
    others = [r for r in after[judged.step.table] if current is None or judged.key_of(r) != key]
    return bool(violations(after | {judged.step.table: [*others, row]}, judged.step.table))
