"""Plan: what apply will do, computed in a read-only transaction, written down, bound by a digest.

The transaction is REPEATABLE READ READ ONLY and locks the tables before it takes its snapshot: without the locks
another session's TRUNCATE or rewriting ALTER would let the snapshot read nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from engine.access import Caller
from engine.catalog import Catalog, Entity
from engine.catalog.moment import one_moment, require_unchanged
from engine.db.models import ImportRow, UploadRow
from engine.db.platform import Connection
from engine.errors import DataInvalid, FailedPrecondition
from engine.faults import fault
from engine.formats.base import Reader
from engine.imports.early import Early, early_form
from engine.imports.edges import Edge, Table, read_edges
from engine.imports.effects import Effects, Origin, new_column
from engine.imports.fill import fill
from engine.imports.fingerprints import new_seed
from engine.imports.model import FieldMapping, ImportOptions, ImportType
from engine.imports.planwrite import Planned, PlanWriter
from engine.imports.refusals import is_refusal
from engine.imports.replace import find_gone
from engine.imports.rules import Rules
from engine.imports.settle import settle
from engine.imports.sources import open_sources
from engine.imports.sqltext import ROW, all_of, equal, joined, listed
from engine.imports.staging import Doubtful, Staging
from engine.imports.targets import Tally, Target, make_target
from engine.imports.temporary import temp_tables
from engine.imports.validate import Judge, Judged
from engine.memory import giving_back, kept

if TYPE_CHECKING:
    from engine.jobs.run import JobRun


class Planner:
    """Makes one plan. The methods are the stages, in the order of `plan`."""

    def __init__(
        self, run: JobRun, row: ImportRow, upload: UploadRow, caller: Caller, *, guarded: bool = False
    ) -> None:
        """Args:
        guarded: the file is known to be written with the formula guard, whatever the caller says.
        """
        self._run = run
        self._resources = run.resources
        self._row = row
        self._upload = upload
        self._caller = caller
        options = ImportOptions.from_record(row.options)
        if guarded and options.format == "CSV":
            options = replace(options, csv=replace(options.csv, undo_formula_guard=True))
        self._options = options
        self._mode = ImportType(row.import_type)
        self._seed = new_seed()
        self._early: Early | None = None
        """Where the new rows are, unless some doubtful record is, or may be, good."""

    def plan(self) -> Planned:
        """Raises:
        DataInvalid: the file cannot be used: its reader's, the mapping's reasons, TOO_MANY_ERRORS, KEY_UNREADABLE.
        FailedPrecondition: ENTITY_NOT_IMPORTABLE, KEY_NOT_USABLE, ROWS_REFERENCED, CASCADE_NOT_ALLOWED.
        """
        run = self._run
        with run.platform("plan", autocommit=True) as connection:
            catalog = self._resources.catalogs.read(connection)
            targets, readers = self._targets(connection, catalog)
            for target in targets:
                target.staging = Staging(
                    connection, target.entity, target.columns,
                    mode=self._mode, key=target.key, number=target.number,
                )  # fmt: skip
            form = early_form(connection, targets)
            if form is not None:
                targets[0].staging.narrow()
            with temp_tables(connection):
                for target in targets:
                    target.staging.create()
                effects = self._effects(connection, catalog, targets)
            with _rows_that_fit(), ExitStack() as kept_early, one_moment(connection, undone=True):
                connection.execute(_lock_what_is_read([t.entity for t in targets], catalog, effects))
                catalog = require_unchanged(self._resources.catalogs.read(connection), [t.entity for t in targets])
                if form is not None:
                    self._early = kept_early.enter_context(Early(run, targets[0].staging, form))
                rules = self._load(targets, readers)
                self._judge(targets, rules, catalog)
                self._follow(targets, effects)
                fault("imports.plan.judged")
                return PlanWriter(run, self._row, self._upload, self._options, self._seed).write(
                    connection, targets, effects, self._early
                )

    # --- before the transaction

    def _targets(self, connection: Connection, catalog: Catalog) -> tuple[list[Target], list[Reader]]:
        """The entities of the import, each with its file; of a bundle in the manifest's order."""
        mapping = tuple(FieldMapping.from_record(m) for m in self._row.options.get("mapping", []))
        targets: list[Target] = []
        readers: list[Reader] = []
        for number, source in enumerate(
            open_sources(self._resources, self._row, self._upload, self._options, check=self._run.check)
        ):
            entity = catalog.entity(source.entity)
            own = tuple(m for m in mapping if m.entity in ("", entity.name))
            if source.options is not self._options:  # a bundle of ours holds generated fields to be looked at
                own += tuple(FieldMapping("", column=f.name) for f in entity.fields if f.generated)
            _check_constants(connection, entity, own)
            target, reader = make_target(
                number,
                entity,
                catalog,
                options=source.options,
                mode=self._mode,
                mapping=own,
                open_file=source.open_file,
                may_set_secrets=lambda name=entity.name: self._caller.may("secrets.set", name),  # type: ignore[misc]
                fields=source.fields,
            )
            target.records = source.records
            for mapped in target.columns.mapped:
                if mapped.lookup is not None:  # a lookup tells which values stand there
                    self._caller.require("imports.read", mapped.lookup.target.name)
            targets.append(target)
            readers.append(reader)
        return targets, readers

    def _effects(self, connection: Connection, catalog: Catalog, targets: list[Target]) -> Effects:
        """Only rows that go or get another key can set a foreign key off."""
        edges: list[Edge] = []
        origins: list[tuple[Table, str]] = []
        if self._mode is not ImportType.ADDITIVE:
            edges = read_edges(connection)
            for target in targets:
                table = (target.entity.schema, target.entity.table)
                if self._mode is ImportType.REPLACE:
                    origins.append((table, "DELETE"))
                if any(_changes(target, edge) for edge in edges):
                    origins.append((table, "UPDATE"))
        effects = Effects(connection, catalog, edges, self._seed)
        effects.create(origins)
        return effects

    # --- inside

    def _load(self, targets: list[Target], readers: list[Reader]) -> list[Rules]:
        """The files, staged: cells judged by their own text, the doubtful ones by their type's input function."""
        run = self._run
        run.stage("VALIDATE", bytes=self._upload.committed_size)
        done = 0
        found = [Rules(target.staging) for target in targets]
        for target, rules, reader in zip(targets, found, readers, strict=True):
            start = done

            def seen(judged: Judged, target: Target = target, start: int = start) -> None:
                target.tally.faults += judged.verdicts.num_rows
                self._refuse_many(sum(t.tally.faults for t in targets))
                rows = start + target.tally.records
                run.progress(rows=rows, bytes=target.tally.bytes_read if len(targets) == 1 else None)

            self._fill(target, rules, reader, seen)
            done = start + target.tally.records
            run.progress(rows=done, bytes=self._upload.committed_size if target is targets[-1] else None)
        run.stage("COMPARE", rows=done)
        fault("imports.plan.staged")
        return found

    def _fill(self, target: Target, rules: Rules, reader: Reader, seen: Callable[[Judged], None]) -> None:
        judge = Judge(target.columns, json=target.options.format != "CSV")
        with suppress(Doubtful):
            with kept():
                judged = map(judge.judge, giving_back(target.batches(reader)))
                unsure = fill(target.staging, judged, seen, self._early)
            rules.cells(unsure, check=self._run.check)
            return
        assert self._early is not None
        self._early.give_up()
        self._early = None
        target.staging.widen()
        target.tally = Tally()
        self._fill(target, rules, target.reader(), seen)

    def _judge(self, targets: list[Target], rules: list[Rules], catalog: Catalog) -> None:
        """What the table and other rows tell."""
        run, stagings = self._run, [t.staging for t in targets]
        for rule in rules:
            rule.lookups(stagings)
            run.check()
        for target in targets:
            if target.staging.matches:
                target.staging.match()
            if self._mode is ImportType.REPLACE:
                target.gone = find_gone(target.staging, self._seed, target.tally.records)
            run.check()
        for rule, target in zip(rules, targets, strict=True):
            rule.rows(check=run.check)
            target.unchecked, target.unchecked_new = rule.unchecked, rule.unchecked_new
        settle(stagings, catalog, check=run.check)
        for rule in rules:
            rule.secrets()

    def _follow(self, targets: list[Target], effects: Effects) -> None:
        origins = [origin for target in targets for origin in _origins(target, effects)]
        if not origins:
            return
        by_table = {(t.entity.schema, t.entity.table): t for t in targets}
        allowed = set(self._options.allow_cascade)
        effects.follow(
            origins,
            lambda edge: _stays(by_table.get(edge.source), edge),
            allowed=lambda name: name in allowed and self._caller.may("imports.apply", name, self._mode.value),
            written=frozenset(by_table),
            check=self._run.check,
        )

    def _refuse_many(self, faults: int) -> None:
        limit = self._resources.settings.max_import_errors
        if faults > limit:
            raise DataInvalid(f"file: found more than {limit:,} faults in its rows", reason="TOO_MANY_ERRORS")


def _changes(target: Target, edge: Edge) -> bool:
    """Whether an update may change what the foreign key refers to."""
    mine = edge.target == (target.entity.schema, target.entity.table)
    touched = {m.field.column for m in target.columns.mapped} | {f.column for f in target.columns.fixed}
    return mine and bool(set(edge.target_columns) & touched - set(target.key or target.entity.key))


def _origins(target: Target, effects: Effects) -> list[Origin]:
    """Where foreign keys may be set off: rows that go, and rows whose referred columns change, as they are now."""
    staging, table = target.staging, (target.entity.schema, target.entity.table)
    found = [Origin(table, staging.gone, "DELETE")] if target.gone else []
    for columns in dict.fromkeys(e.target_columns for e in effects.edges if _changes(target, e)):
        rows = sql.SQL(
            "(SELECT {}, {} FROM {} s JOIN {} m ON m.{} = s.{} AND NOT m.same JOIN {} t ON {} WHERE NOT {} AND {})"
        ).format(
            listed("t", [f.column for f in staging.entity.stored]), _becomes(staging, columns),
            staging.staged, staging.matched, ROW, ROW,
            staging.entity.relation, equal(staging.key_fields),
            staging.same(tuple(c for c in columns if c in staging.touched)), staging.good(),
        )  # fmt: skip
        found.append(Origin(table, rows, "UPDATE", columns))
    return found


def _becomes(staging: Staging, columns: tuple[str, ...]) -> sql.Composable:
    """What an update makes of columns that others refer to."""
    return joined(
        sql.SQL("{}.{} AS {}").format(
            sql.SQL("s" if c in staging.written else "t"), sql.Identifier(c), new_column(n)
        )
        for n, c in enumerate(columns)
    )  # fmt: skip


def _stays(target: Target | None, edge: Edge) -> sql.Composable | None:
    """The referring row `t` is not deleted by the plan itself, nor does the plan give it another reference."""
    if target is None:
        return None
    staging = target.staging
    conditions: list[sql.Composable] = []
    if staging.mode is ImportType.REPLACE:
        conditions.append(sql.SQL("NOT ") + staging.leaves("t"))
    if staging.touches(edge.columns):
        conditions.append(
            sql.SQL("NOT EXISTS (SELECT FROM {} s JOIN {} m ON m.{} = s.{} AND NOT m.same WHERE {})").format(
                staging.staged, staging.matched, ROW, ROW, all_of(equal(staging.key_fields), staging.good())
            )
        )
    return all_of(*conditions) if conditions else None


@contextmanager
def _rows_that_fit() -> Iterator[None]:
    """A temp table's row has its number beside the file's fields, and no more room on a page than the table's.

    Raises:
        FailedPrecondition: ENTITY_NOT_IMPORTABLE.
    """
    try:
        yield
    except psycopg.errors.ProgramLimitExceeded:
        raise FailedPrecondition(
            "file: found a row too wide to be kept with its number; expected both to fit on a page of 8,160 bytes:"
            " import fewer columns at once",
            reason="ENTITY_NOT_IMPORTABLE",
        ) from None


def _check_constants(connection: Connection, entity: Entity, mapping: tuple[FieldMapping, ...]) -> None:
    """A constant is a value of its field, or the plan would end in an error that speaks of no row."""
    for step in mapping:
        field = entity.field(step.field)
        if step.constant is None or field is None:
            continue
        try:
            with connection.transaction(force_rollback=True):  # a domain's check may call anything
                connection.execute("SET TRANSACTION READ ONLY")
                row = connection.execute(
                    "SELECT message FROM pg_input_error_info(%s, %s)", (step.constant.replace("\0", ""), field.type)
                ).fetchone()
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            row = None  # it cannot be evaluated here; the rules say so, row by row or at apply
        if (row and row[0]) or "\0" in step.constant:
            raise DataInvalid(
                f"mapping of {step.field}: found a constant that is no {field.storage_type}", reason="MAPPING_INVALID"
            )


def _lock_what_is_read(entities: list[Entity], catalog: Catalog, effects: Effects) -> sql.Composed:
    """The tables, those they refer to and those that refer to them: none may be rewritten under the snapshot, which
    would read it empty."""
    own = {(e.schema, e.table) for e in entities}
    others = {(r.target_schema, r.target_table) for e in entities for r in e.references} | set(effects.reached)
    tables = [e.relation for e in entities] + [sql.Identifier(*table) for table in sorted(others - own)]
    return sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(joined(tables))
