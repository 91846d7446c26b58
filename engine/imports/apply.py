"""Apply: exactly the plan, in one transaction, or nothing.

The plan is loaded into temp tables and its digests are proven before a lock is taken; new rows that may go straight
into their table (`direct`) are proven as they go. Then, in one transaction: the fence, the locks, what the plan relied
on, the rows, their proof, the sequences, the undo data (durable before COMMIT), the mark.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from engine.catalog import Catalog, Entity
from engine.db.models import ImportRow
from engine.db.platform import Connection, one_number
from engine.errors import DataOpsError, FailedPrecondition
from engine.faults import fault
from engine.imports.direct import copy_in, goes_direct
from engine.imports.drift import Drift, stale
from engine.imports.effect import Effect, Part, parts_of
from engine.imports.indexes import Bare, judged_keys
from engine.imports.isolate import Isolation
from engine.imports.loaded import Loaded, load, load_lookup, load_new
from engine.imports.locks import ACCESS_EXCLUSIVE, ROW_EXCLUSIVE, SHARE_ROW_EXCLUSIVE, wait_for_locks
from engine.imports.model import ImportOptions, ImportType, OnDrift, OnRefused, effective_on_refused
from engine.imports.planfile import Plan
from engine.imports.proofs import Proof
from engine.imports.reactions import Reactions
from engine.imports.refusals import Refuser, is_refusal, refused_by, refuser
from engine.imports.sequences import Advance, advance
from engine.imports.undo import seal_undo

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

ROLLED_BACK = "rolled_back"
"""Metadata of an error that ended the transaction after it had begun."""


class Applier:
    """Applies one plan. The methods are the stages, in the order of `apply`."""

    def __init__(self, run: JobRun, row: ImportRow) -> None:
        assert row.plan_artifact_id is not None
        assert row.plan_digest is not None
        self._run = run
        self._row = row
        self._resources = run.resources
        self._plan = Plan.open(run.resources.artifacts.reader(row.plan_artifact_id), row.plan_digest)
        self._head = self._plan.head
        self._mode = ImportType(self._head["import_type"])
        self._options = ImportOptions.from_record(self._head["options"])
        self._on_refused = effective_on_refused(self._options, self._mode)
        self._seed = int(self._head["seed"])
        self._direct: Loaded | None = None
        """The entity whose new rows, all that is written, have no temp table."""

    def apply(self, backup_id: uuid.UUID) -> dict[str, Any]:
        """Applies the plan and gives the facts of the committed effect. The caller has asked `run.take_over` first.

        Raises:
            Aborted: PLAN_STALE, when anything the plan relied on has moved.
            FailedPrecondition: ENTITY_NOT_IMPORTABLE, ROW_REFUSED, ROWS_UNACCOUNTED, DEFINITIONS_NOT_EQUAL;
            PLATFORM_NOT_PREPARED, RIGHTS_MISSING, SEQUENCE_NOT_OWNED.
            DataLoss: PLAN_DAMAGED.
        """
        run, plan = self._run, self._plan
        writes = sum(plan.rows(s) for s in plan.head["streams"] if s.endswith((".INSERT", ".UPDATE", ".DELETE")))
        with run.platform("apply", autocommit=True) as connection:
            catalog = self._resources.catalogs.read(connection)
            entries = self._entries(catalog)
            self._direct = goes_direct(entries, self._options.on_drift)
            apart = (".ERRORS", ".INSERT") if self._direct else (".ERRORS",)
            if loads := sum(plan.rows(s) for s in plan.head["streams"] if not s.endswith(apart)):
                run.stage("LOAD", rows=loads)
            load(run, connection, entries, but=self._direct)
            self._load_lookups(connection, catalog, entries)
            reactions = Reactions(run, connection, catalog, self._plan, entries)
            fault("imports.apply.loaded")
            run.announce(connection)
            connection.autocommit = False
            with rolled_back_errors():
                run.stage("APPLY", rows=writes)
                wait_for_locks(run, connection, self._locks(entries, reactions))
                self._entries(self._resources.catalogs.read(connection))
                moved = self._check_relied(connection, catalog, entries, reactions)
                facts = self._write(connection, entries, reactions, moved)
                facts |= {"backup_id": str(backup_id)}
            fault("imports.apply.written")
            run.mark(connection, facts)
            run.commit(connection)
            run.progress(rows=writes)
        return facts

    def _entries(self, catalog: Catalog) -> list[Loaded]:
        """The plan's entities, if they are as they were."""
        found = []
        for number, head in enumerate(self._head["entities"]):
            self._same(catalog, head)
            found.append(Loaded(number, catalog.entity(head["name"]), head, self._plan))
        for head in self._head["cascades"]:
            self._same(catalog, head)
        return found

    def _same(self, catalog: Catalog, head: dict[str, Any]) -> None:
        if catalog.entity(head["name"]).fingerprint != head["catalog"]:
            raise stale(f"the definition of {head['name']} has changed since the plan")

    def _load_lookups(self, connection: Connection, catalog: Catalog, entries: list[Loaded]) -> None:
        for entry in entries:
            for number, lookup in enumerate(entry.head["lookups"]):
                target = catalog.entity(lookup["target"])
                fields = target.column(lookup["found"]), entry.entity.column(lookup["column"])
                load_lookup(self._run, connection, entry, number, fields)

    def _locks(self, entries: list[Loaded], reactions: Reactions) -> list[tuple[Entity, str]]:
        wanted = [(e.entity, e.lock) for e in entries]
        named = {e.entity.name for e in entries}
        wanted += [(other, SHARE_ROW_EXCLUSIVE) for other in reactions.entities if other.name not in named]
        wanted += [
            (Entity(f"{schema}.{table}", schema, table, fields=(), key=()), entry.lock)
            for entry in entries
            for schema, table in entry.also_locked
        ]
        return wanted

    # --- what was relied on

    def _check_relied(
        self, connection: Connection, catalog: Catalog, entries: list[Loaded], reactions: Reactions
    ) -> dict[int, tuple[int, int]]:
        """By entity: records that were unchanged and have moved, and rows that were to go and have."""
        moved: dict[int, tuple[int, int]] = {}
        for entry in entries:
            drift = Drift(connection, entry, self._mode, self._seed)
            for number in range(len(entry.head["lookups"])):
                drift.lookups(entry.lookup(number), number, catalog)
            if self._options.on_drift is OnDrift.SKIP_MOVED:
                moved[entry.number] = drift.leave_out()
                if self._head["cascades"]:
                    drift.require_effects()
            else:
                drift.require_none()
        reactions.require_as_planned()
        return moved

    # --- the effect

    def _write(
        self, connection: Connection, entries: list[Loaded], reactions: Reactions, moved: dict[int, tuple[int, int]]
    ) -> dict[str, Any]:
        before = {e.number: _count(connection, e.entity) if e.lock != ROW_EXCLUSIVE else None for e in entries}
        others = reactions.counts()
        # the lock was chosen for an empty table; a row that has come since only makes it slower
        empty = [e for e in entries if e.lock == ACCESS_EXCLUSIVE and before[e.number] == 0]
        bare = [Bare(connection, e.entity) for e in empty if e is not self._direct]
        effect = Effect(connection, self._seed)
        parts = parts_of(entries, _rounds(connection, entries), {e.number for e in entries if e.head["assigned"]})
        effect.prepare(parts)
        counts = self._effect(connection, effect, entries, parts, moved, empty=self._direct in empty)
        changed = self._prove(effect, parts, counts)
        self._run.check()
        for table in bare:
            table.build()
        facts = [self._facts(connection, e, parts, counts, changed, moved, before[e.number]) for e in entries]
        reactions.require_counts(others)
        for entry, own in zip(entries, facts, strict=True):
            self._require_sum(entry, own, reactions.deleted(entry.entity))
            own["sequences"] = self._advance(connection, entry)
        stayed = reactions.read_again(any(own["late_failed"] or own["late_skipped"] for own in facts))
        undo = seal_undo(self._run, connection, self._row, entries, parts, stayed, self._seed)
        cascades = [{"entity": s.entity.name, "changed_by_trigger": s.changed} for s in stayed]
        return {"entities": facts, "cascades": cascades, "undo_artifact_id": str(undo) if undo else None}

    def _effect(
        self,
        connection: Connection,
        effect: Effect,
        entries: list[Loaded],
        parts: list[Part],
        moved: dict[int, tuple[int, int]],
        *,
        empty: bool,
    ) -> list[int]:
        """Rows that each part wrote; all that were planned, unless rows that the table refuses are to be left out.

        Args:
            empty: rows that go straight in are the table's first.
        """
        if not parts:
            return []
        direct = self._direct
        expected = [direct.rows("INSERT")] if direct else _expected(connection, parts)
        try:
            with connection.transaction() as scope:
                connection.execute("SET CONSTRAINTS ALL DEFERRED")
                bare = None
                if direct and empty:
                    unique = judged_keys(direct.entity, direct.columns)
                    bare = Bare(connection, direct.entity, unique, direct.also_locked)
                counts = [copy_in(self._run, connection, direct)] if direct else effect.write(parts)
                connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                if bare is not None:
                    bare.build()
                if counts == expected:
                    return counts
                if self._on_refused is OnRefused.SKIP:
                    raise psycopg.Rollback(scope)
                missing = sum(expected) - sum(counts)
                raise FailedPrecondition(
                    f"{entries[0].entity.name}: a trigger refused {missing} of {sum(expected)} planned rows",
                    reason="ROW_REFUSED",
                )
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            by = refuser(connection, error)
            late = next((s for e in entries if (s := self._stale(e, error, by)) is not None), None)
            if late is not None:
                raise late from None
            if self._on_refused is OnRefused.ABORT:
                raise _refused(entries, error, by) from None
        self._run.notice("ROWS_REFUSED", "the table refused planned rows; they are looked for and left out")
        self._give_temp_table(connection)

        def moved_since(entry: Loaded, error: psycopg.Error) -> DataOpsError | None:
            return self._stale(entry, error, refuser(connection, error))

        isolation = Isolation(connection, effect, entries, stale=moved_since, check=self._run.check)
        return isolation.write(parts)

    def _give_temp_table(self, connection: Connection) -> None:
        """New rows that could not go straight into their table, or whose numbers are to be looked at again."""
        if self._direct is not None:
            load_new(self._run, connection, self._direct)
            self._direct = None

    def _stale(self, entry: Loaded, error: psycopg.Error, by: Refuser) -> DataOpsError | None:
        """What planning has looked at can only have moved since; what it could not look at is refused for the first
        time."""
        if self._options.on_drift is OnDrift.SKIP_MOVED:
            return None
        name, planned = by.constraint, set(entry.columns) | set(entry.touched)
        entity = entry.entity
        if (by.schema, by.table) != (entity.schema, entity.table):
            return None
        keys = any(k.name == name and not k.partial and planned >= set(k.columns) for k in entity.unique)
        # REPLACE has found the whole table as it was, under its lock: then a trigger is in the way, not another's row
        keys = keys and self._mode is not ImportType.REPLACE
        if keys and isinstance(error, psycopg.errors.UniqueViolation):
            return stale(f"{entity.name}: a row with a planned value of {name} has come since the plan")
        references = any(r.name == name and planned >= set(r.columns) for r in entity.references)
        if references and isinstance(error, psycopg.errors.ForeignKeyViolation):
            return stale(f"{entity.name}: a row that {name} refers to has gone since the plan")
        return None

    def _prove(self, effect: Effect, parts: list[Part], counts: list[int]) -> dict[tuple[int, str], int]:
        """Rows that are stored otherwise than planned, by entity and verb.

        Raises:
            FailedPrecondition: ROWS_UNACCOUNTED where a row that was written is not there any more.
        """
        changed: dict[tuple[int, str], int] = {}
        for part in parts:
            of = part.entry.number, part.verb
            if part.proof is Proof.COUNT or of in changed:
                continue
            if part.proof is Proof.READ_AGAIN:
                wrote = sum(n for p, n in zip(parts, counts, strict=True) if (p.entry.number, p.verb) == of)
                if (found := effect.read_again(part)) != wrote:
                    raise FailedPrecondition(
                        f"{part.entry.entity.name}: found {found} of {wrote} rows that were written; a trigger takes"
                        " others away, which the plan did not hold",
                        reason="ROWS_UNACCOUNTED",
                    )
            changed[of] = effect.changed(part)
        return changed

    def _facts(
        self,
        connection: Connection,
        entry: Loaded,
        parts: list[Part],
        counts: list[int],
        changed: dict[tuple[int, str], int],
        moved: dict[int, tuple[int, int]],
        before: int | None,
    ) -> dict[str, Any]:
        done = dict.fromkeys(("INSERT", "UPDATE", "DELETE"), 0)
        for part, count in zip(parts, counts, strict=True):
            if part.entry is entry:
                done[part.verb] += count
        late = connection.execute(
            sql.SQL(
                "SELECT count(*) FILTER (WHERE severity = 'FAILED'), count(*) FILTER (WHERE severity = 'SKIPPED') "
                "FROM {}"
            ).format(entry.errors)
        ).fetchone()
        failed, skipped = late or (0, 0)
        return {
            "entity": entry.entity.name,
            "inserted": done["INSERT"],
            "updated": done["UPDATE"],
            "deleted": done["DELETE"],
            "unchanged": entry.rows("UNCHANGED") - moved.get(entry.number, (0, 0))[0],
            "kept": moved.get(entry.number, (0, 0))[1],
            "late_failed": failed,
            "late_skipped": skipped,
            "changed_by_trigger": sum(n for (number, _), n in changed.items() if number == entry.number),
            "rows_before": before,
            "rows_after": _count(connection, entry.entity) if before is not None else None,
        }

    def _require_sum(self, entry: Loaded, facts: dict[str, Any], cascaded: int) -> None:
        before, after = facts["rows_before"], facts["rows_after"]
        if before is None or before + facts["inserted"] - facts["deleted"] - cascaded == after:
            return
        raise FailedPrecondition(
            f"{entry.entity.name}: found {after} rows after {facts['inserted']} were added to {before} and"
            f" {facts['deleted']} taken away; a trigger adds or removes others, which the plan did not hold",
            reason="ROWS_UNACCOUNTED",
        )

    def _advance(self, connection: Connection, entry: Loaded) -> dict[str, int]:
        moved: list[Advance] = []
        if entry.rows("INSERT"):
            new = (entry.entity.column(c) for c in entry.columns)
            reached = entry.head["reached"] if entry is self._direct else None
            moved += advance(connection, entry.entity, new, lambda: self._new_rows(connection, entry), reached)
        if entry.rows("UPDATE"):
            old = (entry.entity.column(c) for c in entry.touched)
            moved += advance(connection, entry.entity, old, lambda: entry.updates)
        return {a.sequence: a.to for a in moved}

    def _new_rows(self, connection: Connection, entry: Loaded) -> sql.Identifier:
        if entry is self._direct:
            self._give_temp_table(connection)
        return entry.planned


@contextmanager
def rolled_back_errors() -> Iterator[None]:
    """Marks a domain error as one that ended the transaction."""
    try:
        yield
    except DataOpsError as error:
        error.metadata[ROLLED_BACK] = "true"
        raise


def _refused(entries: list[Loaded], error: psycopg.Error, by: Refuser) -> DataOpsError:
    """A row that a table refuses now."""
    where = next((e for e in entries if (e.entity.schema, e.entity.table) == (by.schema, by.table)), entries[0])
    return FailedPrecondition(
        f"{where.entity.name}: {refused_by(where.entity, error, by.constraint, 'a planned row')}; nothing was changed",
        reason="ROW_REFUSED",
        metadata={"constraint": by.constraint, "sqlstate": error.sqlstate or ""},
    )


def _rounds(connection: Connection, entries: list[Loaded]) -> dict[int, int]:
    """By entity, the last round of its updates."""
    found: dict[int, int] = {}
    for entry in entries:
        if entry.rows("UPDATE"):
            last = sql.SQL('SELECT coalesce(max("#round"), 0) FROM {}').format(entry.updates)
            found[entry.number] = one_number(connection, last)
    return found


def _expected(connection: Connection, parts: list[Part]) -> list[int]:
    """Rows that each part should write: what is left of the plan when moved rows are out of it."""
    return [one_number(connection, sql.SQL("SELECT count(*) FROM {}").format(part.source)) for part in parts]


def _count(connection: Connection, entity: Entity) -> int:
    return one_number(connection, sql.SQL("SELECT count(*) FROM {}").format(entity.relation))
