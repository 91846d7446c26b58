"""What a way back needs beside the plan: what apply found itself, and what was really stored. Durable before COMMIT."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from psycopg import sql

from engine.artifacts import ArtifactKind
from engine.catalog import Entity
from engine.db.copy import CopyOut
from engine.db.models import ImportRow
from engine.db.platform import Connection
from engine.imports import planfile
from engine.imports.effect import Part
from engine.imports.loaded import Loaded
from engine.imports.proofs import Proof
from engine.imports.reactions import Stayed
from engine.imports.sqltext import joined

if TYPE_CHECKING:
    from engine.jobs.run import JobRun


def seal_undo(
    run: JobRun,
    connection: Connection,
    row: ImportRow,
    entries: Sequence[Loaded],
    parts: Sequence[Part],
    stayed: Sequence[Stayed],
    seed: int,
) -> uuid.UUID | None:
    """Streams, named as the plan's: INSERT, UPDATE and CASCADE with 0, the fingerprint after, the key; LATE with the
    rows that were left out. CASCADE holds the rows that foreign keys changed, by the key they have now. None where the
    row counts are the proof and nothing was left out or changed by foreign keys: then the plan itself holds all.

    Inserts have no before-image; those of updates and deletes stand in the plan.
    """
    told = {(p.entry.number, p.verb): p for p in parts if p.proof is not Proof.COUNT}
    late = [e for e in entries if _any(connection, e.errors)]
    if not told and not late and not stayed:
        return None
    store = run.resources.artifacts
    with run.resources.db.transaction() as session:
        artifact_id = store.create(session, ArtifactKind.UNDO, "job", run.job.id)
    with store.writer(artifact_id) as sink:
        streams = {}
        for (number, verb), part in told.items():
            name = f"{number}.{verb}"
            streams[name] = _stream(connection, sink, name, _stored(part.entry.entity, part.written))
        for rows in stayed:
            name = f"{rows.number}.CASCADE"
            streams[name] = _stream(connection, sink, name, _stored(rows.entity, rows.written))
        for entry in late:
            name = f"{entry.number}.LATE"
            query = sql.SQL(
                "COPY (SELECT row, severity, field, code, message, '' FROM {} ORDER BY row, code) TO STDOUT"
            ).format(entry.errors)
            streams[name] = _stream(connection, sink, name, query)
        head = {
            "format": planfile.FORMAT,
            "import_id": str(row.id),
            "entities": [_columns(e.entity) | {"relied": e.head["relied"]} for e in entries],
            "cascades": [_columns(r.entity) | {"number": r.number} for r in stayed],
            "seed": seed,
            "streams": streams,
        }
        planfile.write_head(sink, head)
        sink.close()
    return artifact_id


def _columns(entity: Entity) -> dict[str, object]:
    return {"name": entity.name, "key": list(entity.key), "stored": [f.column for f in entity.stored]}


def _stored(entity: Entity, written: sql.Identifier) -> sql.Composed:
    key = [sql.Identifier(c) for c in entity.key]
    order = joined(key) if key else sql.SQL('"#print"')
    return sql.SQL('COPY (SELECT {} FROM {} ORDER BY {}) TO STDOUT').format(
        joined([sql.SQL("0"), sql.SQL('"#print"'), *key]), written, order
    )  # fmt: skip


def _stream(connection: Connection, sink: planfile.PartSink, name: str, query: sql.Composed) -> dict[str, object]:
    with planfile.StreamWriter(sink, name) as writer:
        for lines in CopyOut(connection, query):
            writer.add(lines)
        return writer.close()


def _any(connection: Connection, table: sql.Identifier) -> bool:
    row = connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(table)).fetchone()
    return bool(row and row[0])
