"""Apply: exactly the plan, in one transaction, or nothing.

The plan is loaded into temp tables and its digests are proven before a lock is taken. Then, in one transaction: the
fence, the lock, what the plan relied on, the rows, their proof, the sequences, the undo data (durable before COMMIT),
the mark.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from engine.artifacts import ArtifactKind
from engine.catalog import Entity, Field
from engine.db.copy import CopyOut, write_copy
from engine.db.models import ImportRow
from engine.db.platform import Connection
from engine.errors import Aborted, DataLoss, DataOpsError, FailedPrecondition
from engine.faults import fault
from engine.imports import indexes, planfile
from engine.imports.fingerprints import fingerprint
from engine.imports.locks import ACCESS_EXCLUSIVE, ROW_EXCLUSIVE, wait_for_lock
from engine.imports.planfile import Plan
from engine.imports.proofs import Proof, choose_proof
from engine.imports.refusals import is_refusal
from engine.imports.sequences import advance
from engine.imports.staging import equal

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

PLANNED = sql.Identifier("pg_temp", "planned")
SKIPPED = sql.Identifier("pg_temp", "skipped")
WRITTEN = sql.Identifier("pg_temp", "written")
ROW = sql.Identifier("#row")
PRINT = sql.Identifier("#print")
SHOWN = sql.Identifier("#shown")

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
        self._seed = int(self._head["seed"])

    def apply(self, backup_id: uuid.UUID | None) -> dict[str, Any]:
        """Applies the plan and gives the facts of the committed effect. The caller has asked `run.take_over` first.

        Raises:
            Aborted: PLAN_STALE, when anything the plan relied on has moved.
            FailedPrecondition: ROW_REFUSED, ROWS_UNACCOUNTED; PLATFORM_NOT_PREPARED, SEQUENCE_NOT_OWNED.
            DataLoss: PLAN_DAMAGED.
        """
        run = self._run
        with run.platform("apply", autocommit=True) as connection:
            entity = self._entity(connection)
            run.stage("LOAD", rows=self._plan.rows("INSERT"))
            self._load(connection, entity)
            fault("imports.apply.loaded")
            run.announce(connection)
            connection.autocommit = False
            with _rolled_back_errors():
                run.stage("APPLY", rows=self._plan.rows("INSERT"))
                wait_for_lock(run, connection, entity, self._head["lock"]["mode"])
                self._check_relied(connection)
                facts = self._write(connection, entity) | {"backup_id": str(backup_id) if backup_id else None}
            fault("imports.apply.written")
            run.mark(connection, facts)
            run.commit(connection)
            run.progress(rows=facts["inserted"])
        return facts

    def _entity(self, connection: Connection) -> Entity:
        entity = self._resources.catalogs.read(connection).entity(self._head["entity"])
        if entity.fingerprint != self._head["catalog"]:
            raise _stale(f"the definition of {entity.name} has changed since the plan")
        return entity

    @property
    def _columns(self) -> list[str]:
        return list(self._head["planned"])

    # --- the plan in temp tables

    def _load(self, connection: Connection, entity: Entity) -> None:
        fields = [entity.column(c) for c in self._columns]
        keys = [entity.column(c) for c in entity.key]
        self._fill(connection, PLANNED, [ROW, PRINT], fields, "INSERT")
        self._fill(connection, SKIPPED, [ROW, PRINT], keys, "SKIP")
        connection.execute(
            sql.SQL("CREATE TEMP TABLE written ({})").format(
                sql.SQL(", ").join([_bigint(PRINT), _bigint(SHOWN), *map(_typed, keys)])
            )
        )

    def _fill(
        self, connection: Connection, table: sql.Identifier, own: list[sql.Identifier], fields: list[Field], stream: str
    ) -> None:
        """One stream into one temp table. Its digest is proven at the end of `lines`, its count after."""
        name = sql.Identifier(table._obj[-1])
        columns = [*map(_bigint, own), *map(_typed, fields)]
        connection.execute(sql.SQL("CREATE TEMP TABLE {} ({})").format(name, sql.SQL(", ").join(columns)))
        expected, done = self._plan.rows(stream), 0
        with connection.cursor() as cursor:
            with cursor.copy(sql.SQL("COPY {} FROM STDIN").format(table)) as copy:
                for lines in self._plan.lines(stream):
                    write_copy(copy, lines)
                    done += lines.count(b"\n")
                    self._run.progress(rows=done if stream == "INSERT" else None)
            if cursor.rowcount != expected:
                raise DataLoss(
                    f"plan: found {cursor.rowcount} rows in {stream}, expected {expected}", reason="PLAN_DAMAGED"
                )
        if stream == "SKIP":  # joined by key; what is inserted is only read through
            connection.execute(sql.SQL("ANALYZE {}").format(table))

    # --- the effect

    def _check_relied(self, connection: Connection) -> None:
        """Under the lock: the definition, and every row whose presence made the plan leave a record out.

        That planned keys and unique values are absent needs no look: the unique indexes refuse the insert otherwise.
        """
        entity = self._entity(connection)
        expected = self._plan.rows("SKIP")
        if not expected:
            return
        row = connection.execute(
            sql.SQL("SELECT count(*) FROM {} s JOIN {} t ON {} WHERE {} = s.{}").format(
                SKIPPED,
                entity.relation,
                equal(map(entity.column, entity.key)),
                fingerprint("t", self._head["relied"], self._seed),
                PRINT,
            )
        ).fetchone()
        found = row[0] if row else 0
        if found != expected:
            raise _stale(f"{expected - found} of {expected} rows that stay as they are have changed since the plan")

    def _write(self, connection: Connection, entity: Entity) -> dict[str, Any]:
        whole = self._head["lock"]["mode"] != ROW_EXCLUSIVE
        before = _count(connection, entity) if whole else None
        proof = choose_proof(entity, bool(self._head["assigned"]))
        # the lock was chosen for an empty table; a row that has come since only makes it slower
        bulk = self._head["lock"]["mode"] == ACCESS_EXCLUSIVE and before == 0
        dropped = indexes.plain_indexes(connection, entity) if bulk else []
        indexes.drop(connection, dropped)
        inserted, changed = self._insert(connection, entity, proof)
        self._run.check()
        indexes.build(connection, entity, dropped)
        after = _count(connection, entity) if whole else None
        if whole and (before or 0) + inserted != after:
            raise FailedPrecondition(
                f"{entity.name}: found {after} rows after {inserted} were added to {before}; a trigger adds or removes"
                " others, which the plan did not hold",
                reason="ROWS_UNACCOUNTED",
            )
        fields = tuple(entity.column(c) for c in self._columns)
        moved = advance(connection, entity, fields, PLANNED)
        undo = None if proof is Proof.COUNT else self._seal_undo(connection, entity)
        return {
            "inserted": inserted,
            "changed_by_trigger": changed,
            "rows_before": before,
            "rows_after": after,
            "sequences": {a.sequence: a.to for a in moved},
            "undo_artifact_id": str(undo) if undo else None,
        }

    def _insert(self, connection: Connection, entity: Entity, proof: Proof) -> tuple[int, int]:
        """Rows inserted, and how many of them a trigger stored otherwise than planned."""
        columns = sql.SQL(", ").join(sql.Identifier(c) for c in self._columns)
        always = any(entity.column(c).identity == "ALWAYS" for c in self._columns)
        insert = sql.SQL("INSERT INTO {} AS t ({}) {} SELECT {} FROM {}").format(
            entity.qualified,
            columns,
            sql.SQL("OVERRIDING SYSTEM VALUE" if always else ""),
            columns,
            PLANNED,
        )
        expected = self._plan.rows("INSERT")
        try:
            if proof is Proof.COUNT:
                inserted = connection.execute(insert).rowcount
                connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            else:
                inserted = self._insert_and_look(connection, entity, insert, proof)
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            raise _refused(entity, error, set(self._columns)) from None
        if inserted != expected:
            raise FailedPrecondition(
                f"{entity.name}: a trigger refused {expected - inserted} of {expected} planned rows",
                reason="ROW_REFUSED",
            )
        return inserted, 0 if proof is Proof.COUNT else self._changed(connection)

    def _insert_and_look(self, connection: Connection, entity: Entity, insert: sql.Composed, proof: Proof) -> int:
        """What is stored, as RETURNING says it, or read again by key where an AFTER trigger may have changed it."""
        prints = sql.SQL("{}, {}").format(
            fingerprint("t", [f.column for f in entity.stored], self._seed),
            fingerprint("t", self._columns, self._seed),
        )
        keys = [sql.SQL("t.") + sql.Identifier(c) for c in entity.key]
        returned = sql.SQL(", ").join([prints, *keys])
        inserted = connection.execute(
            sql.SQL("WITH inserted AS ({} RETURNING {}) INSERT INTO {} SELECT * FROM inserted").format(
                insert, returned, WRITTEN
            )
        ).rowcount
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        if proof is Proof.READ_AGAIN:
            kept = sql.Identifier("pg_temp", "returned")
            connection.execute("ALTER TABLE pg_temp.written RENAME TO returned")
            connection.execute("CREATE TEMP TABLE written (LIKE pg_temp.returned)")
            inserted = connection.execute(
                sql.SQL("INSERT INTO {} SELECT {} FROM {} s JOIN {} t ON {}").format(
                    WRITTEN,
                    returned,
                    kept,
                    entity.relation,
                    equal(map(entity.column, entity.key)),
                )
            ).rowcount
        return inserted

    def _changed(self, connection: Connection) -> int:
        row = connection.execute(
            sql.SQL("SELECT count(*) FROM (SELECT w.{} FROM {} w EXCEPT ALL SELECT {} FROM {} s) changed").format(
                SHOWN, WRITTEN, fingerprint("s", self._columns, self._seed), PLANNED
            )
        ).fetchone()
        return int(row[0]) if row else 0

    def _seal_undo(self, connection: Connection, entity: Entity) -> uuid.UUID:
        """Keys and after-fingerprints, durable before COMMIT: what a revert compares. Inserts have no before-image.

        Where the row count is the proof the plan itself holds them, and is kept as the undo data.
        """
        store = self._resources.artifacts
        with self._resources.db.transaction() as session:
            artifact_id = store.create(session, ArtifactKind.UNDO, "job", self._run.job.id)
        keys = [sql.Identifier(c) for c in entity.key]
        query = sql.SQL("COPY (SELECT 0, {} FROM {} ORDER BY {}) TO STDOUT").format(
            sql.SQL(", ").join([PRINT, *keys]), WRITTEN, sql.SQL(", ").join(keys or [PRINT])
        )
        with store.writer(artifact_id) as sink:
            writer = planfile.StreamWriter(sink, "INSERT", key_at=tuple(range(2, 2 + len(keys))))
            for lines in CopyOut(connection, query):
                writer.add(lines)
            planfile.write_head(
                sink,
                {
                    "format": planfile.FORMAT,
                    "import_id": str(self._row.id),
                    "entity": entity.name,
                    "key": list(entity.key),
                    "stored": [f.column for f in entity.stored],
                    "seed": self._seed,
                    "streams": {"INSERT": writer.close()},
                },
            )
            sink.close()
        return artifact_id


@contextmanager
def _rolled_back_errors() -> Iterator[None]:
    """Marks a domain error as one that ended the transaction."""
    try:
        yield
    except DataOpsError as error:
        error.metadata[ROLLED_BACK] = "true"
        raise


def _stale(what: str) -> Aborted:
    return Aborted(f"{what}; nothing was changed, make a new plan", reason="PLAN_STALE")


def _refused(entity: Entity, error: psycopg.Error, planned: set[str]) -> DataOpsError:
    """A row that the table refuses now. The driver's text holds values, so only the constraint is named.

    What planning has looked at can only have moved since; what it could not look at is refused for the first time.
    """
    name = error.diag.constraint_name or ""
    looked_at = {key.name for key in entity.unique if not key.partial and planned >= set(key.columns)}
    looked_at |= {reference.name for reference in entity.references if planned >= set(reference.columns)}
    if isinstance(error, psycopg.errors.UniqueViolation) and name in looked_at:
        return _stale(f"{entity.name}: a row with a planned value of {name} has come since the plan")
    if isinstance(error, psycopg.errors.ForeignKeyViolation) and name in looked_at:
        return _stale(f"{entity.name}: a row that {name} refers to has gone since the plan")
    who = f"the constraint {name}" if name else "a trigger"
    return FailedPrecondition(
        f"{entity.name}: {who} refused a planned row; nothing was changed",
        reason="ROW_REFUSED",
        metadata={"constraint": name, "sqlstate": error.sqlstate or ""},
    )


def _count(connection: Connection, entity: Entity) -> int:
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(entity.relation)).fetchone()
    return int(row[0]) if row else 0


def _bigint(name: sql.Identifier) -> sql.Composed:
    return sql.SQL("{} bigint").format(name)


def _typed(field: Field) -> sql.Composed:
    collation = " COLLATE " + field.collation if field.collation else ""
    return sql.SQL("{} {}{}").format(sql.Identifier(field.column), sql.SQL(field.storage_type), sql.SQL(collation))
