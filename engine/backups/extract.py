"""Rows of a backup as the file of an import: the first stage of its plan, where a call has asked for rows by key.

The backup's rows are staged and proven as for a comparison, and the wanted ones written as an export writes them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from psycopg import sql

from engine.access import Caller
from engine.artifacts import ArtifactKind
from engine.backups.archive import Archive
from engine.backups.differences import Pair, alike_of, pairs_of, same_key
from engine.backups.manifest import BackedEntity
from engine.backups.opening import open_archive
from engine.backups.record import backup_of
from engine.backups.staging import drop, stage, staged_table
from engine.catalog import Entity, Field
from engine.db.copy import CopyOut
from engine.db.models import ImportRow, UploadRow
from engine.db.platform import Connection, one_number
from engine.errors import DataInvalid, FailedPrecondition
from engine.exports.query import json_copy
from engine.exports.values import output_text
from engine.faults import fault
from engine.imports.refusals import is_refusal
from engine.imports.sqltext import Temp, creation, joined, listed, typed
from engine.imports.temporary import temp_tables
from engine.jobs.model import Severity
from engine.uploads.service import Uploads

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

STAGED, WANTED, EXTRACTED = staged_table(0), Temp("wanted_0"), Temp("extracted_0")

Key = tuple[tuple[str, str], ...]
"""One row's key: field names and PostgreSQL's texts."""


def encoded_keys(keys: Sequence[Key]) -> bytes:
    """The wanted keys as they are kept, sealed, until their rows are taken out: one JSON object a line."""
    return b"".join(json.dumps(dict(key), ensure_ascii=False).encode() + b"\n" for key in keys)


@dataclass(frozen=True)
class Extraction:
    """What an import's options say of it; no key is among them."""

    backup_id: UUID
    entity: str
    missing: int = 0
    """Wanted rows that the backup lacks, once that is known."""

    def as_record(self) -> dict[str, Any]:
        return {"backup_id": str(self.backup_id), "entity": self.entity, "missing": self.missing}

    @classmethod
    def of(cls, row: ImportRow) -> Extraction | None:
        """None for an import of a file that somebody has sent."""
        record = row.options.get("extract")
        return cls(UUID(record["backup_id"]), record["entity"], record["missing"]) if record else None

    def notices(self) -> list[dict[str, Any]]:
        """What the plan says of it."""
        if not self.missing:
            return []
        message = f"{self.missing} of the rows asked for are not in the backup"
        return [{"code": "ROWS_NOT_IN_BACKUP", "message": message, "severity": Severity.WARNING.value}]


def require_open_key(entity: str, names: Sequence[str], secret: Sequence[str], *, secrets: bool) -> None:
    """Return when rows may be asked for by these fields. By a secret one only who may set secrets asks: whether the
    backup has a row of a guessed key would tell anybody else what the field holds.

    Raises: FailedPrecondition: KEY_NOT_USABLE.
    """
    found = [name for name in names if name in secret]
    if found and not secrets:
        raise FailedPrecondition(
            f"{entity}: its key has the secret field {found[0]}; rows are asked for by it with secrets.set only",
            reason="KEY_NOT_USABLE",
            metadata={"entity": entity, "field": found[0]},
        )


def take_out(run: JobRun, row: ImportRow, upload: UploadRow, caller: Caller, wanted: Extraction) -> Extraction:
    """Makes the upload's file out of the backup and finishes the upload; an attempt that died has left nothing.

    Raises:
        DataInvalid: ROWS_NOT_IN_BACKUP when it has none of them, KEY_INVALID; FailedPrecondition: SCHEMA_INCOMPATIBLE,
        KEY_NOT_USABLE, BACKUP_STATE, KEY_UNKNOWN, UPLOAD_GONE; DataLoss: a damaged backup; PermissionDenied; NotFound:
        ENTITY_UNKNOWN.
    """
    resources = run.resources
    caller.require("backups.extract", wanted.entity)
    with resources.db.transaction() as session:
        backup = backup_of(session, wanted.backup_id)
    archive = open_archive(resources, backup)
    backed = archive.manifest.entity(wanted.entity)
    assert backed is not None and upload.artifact_id is not None, "both were looked at when it was asked for"
    keys = _keys(b"".join(resources.artifacts.reader(upload.artifact_id).read()))
    run.stage("EXTRACT", rows=backed.rows)
    with run.platform("extract", autocommit=True) as connection:
        live = resources.catalogs.read(connection).entity(wanted.entity)
        taking = _Taking(run, connection, archive, live, backed, secrets=caller.may("secrets.set", live.name))
        missing = taking.stage(keys)
        if missing == len(keys):
            raise DataInvalid(
                f"backup: found none of the {len(keys)} rows of {live.name} that were asked for",
                reason="ROWS_NOT_IN_BACKUP",
            )
        artifact_id = taking.write()
    fault("backups.extracted")
    with resources.db.transaction() as session:
        run.require_hold(session)
        Uploads(resources).keep_promise(session, upload.id, artifact_id, resources.clock())
        found = replace(wanted, missing=missing)
        again = session.get_one(ImportRow, row.id, with_for_update=True, populate_existing=True)
        again.options = again.options | {"extract": found.as_record()}
    return found


def _keys(data: bytes) -> list[dict[str, str]]:
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


class _Taking:
    """One extraction in one platform session."""

    def __init__(
        self,
        run: JobRun,
        connection: Connection,
        archive: Archive,
        live: Entity,
        backed: BackedEntity,
        *,
        secrets: bool,
    ) -> None:
        self._run = run
        self._connection = connection
        self._archive = archive
        self._live = live
        self._backed = backed
        pairs = pairs_of(live, backed, {})
        self._all = {pair.live.column: pair for pair in pairs}
        self._secrets = secrets
        self._secret = [p.live.name for p in pairs if p.live.secret or p.backed.secret]
        self._pairs = [p for p in pairs if secrets or p.live.name not in self._secret]
        self._alike = alike_of(connection, pairs)

    def stage(self, keys: Sequence[dict[str, str]]) -> int:
        """The wanted rows, typed as they are now; how many of the keys the backup lacks."""
        key = self._key(keys[0])
        self._want(key, keys)
        stage(self._run, self._connection, self._archive, self._backed, STAGED)
        self._run.check()
        with temp_tables(self._connection):
            columns = [typed(self._now(pair)) for pair in self._pairs]
            self._connection.execute(creation(EXTRACTED, columns))
        same = same_key(key, self._alike)
        self._connection.execute(
            sql.SQL("INSERT INTO {} SELECT {} FROM {} s WHERE EXISTS (SELECT FROM {} t WHERE {})").format(
                EXTRACTED, joined(map(self._value, self._pairs)), STAGED, WANTED, same
            )
        )
        missing = one_number(
            self._connection,
            sql.SQL("SELECT count(*) FROM {} t WHERE NOT EXISTS (SELECT FROM {} s WHERE {})").format(
                WANTED, STAGED, same
            ),
        )
        drop(self._connection, [STAGED])
        return missing

    def write(self) -> UUID:
        """The file, as an artifact that is still the job's."""
        store, run = self._run.resources.artifacts, self._run
        entity = replace(self._live, schema="pg_temp", table=EXTRACTED.name, partitioned=True)
        fields = [self._now(pair) for pair in self._pairs]
        order = sql.SQL(" ORDER BY ") + listed("t", [f.column for f in fields if f.column in self._live.key])
        with run.resources.db.transaction() as session:
            artifact_id = store.create(session, ArtifactKind.UPLOAD, "job", run.job.id)
        with store.writer(artifact_id) as writer:
            for lines in CopyOut(self._connection, json_copy(entity, fields, order)):
                writer.write(b"".join(lines))
            writer.close()
        return artifact_id

    def _key(self, names: dict[str, str]) -> list[Pair]:
        """The columns of both that the wanted keys speak of; the right to secret ones may be gone since they were
        asked for, and what is secret in the backup need not be so now."""
        fields = [self._live.field(name) for name in names]
        columns = [field.column for field in fields if field is not None]
        if len(columns) != len(names) or not set(columns) <= set(self._all):
            raise FailedPrecondition(
                f"{self._live.name}: its key is {', '.join(self._backed.key) or 'none'} in the backup, expected"
                f" {', '.join(names)}",
                reason="SCHEMA_INCOMPATIBLE",
                metadata={"entity": self._live.name},
            )
        require_open_key(self._live.name, list(names), self._secret, secrets=self._secrets)
        return [self._all[column] for column in columns]

    def _want(self, key: Sequence[Pair], keys: Sequence[dict[str, str]]) -> None:
        """The wanted keys, read by their types, which cut nothing off here."""
        with temp_tables(self._connection):
            columns = [typed(replace(pair.live, storage_type=pair.live.bare_type)) for pair in key]
            self._connection.execute(creation(WANTED, columns))
        try:
            with self._connection.cursor() as cursor, cursor.copy(sql.SQL("COPY {} FROM STDIN").format(WANTED)) as copy:
                for wanted in keys:
                    copy.write_row(list(wanted.values()))
        except psycopg.Error as error:
            if not is_refusal(error):
                raise
            names = ", ".join(keys[0])
            raise DataInvalid(
                f"keys: found a value of {names} that its type does not read", reason="KEY_INVALID"
            ) from None
        self._connection.execute(sql.SQL("ANALYZE {}").format(WANTED))

    def _now(self, pair: Pair) -> Field:
        """The field as it is written: of its own type, or of the backup's texts where the type is another now; the
        import reads either, and judges what it reads."""
        if pair in self._alike:
            return replace(pair.live, storage_type=pair.live.bare_type)
        name = pair.live.name
        return Field(name, pair.live.column, type="text", base="text", category="S", nullable=True, storage_type="text")

    def _value(self, pair: Pair) -> sql.Composable:
        value = sql.SQL("s.") + sql.Identifier(pair.backed.name)
        return value if pair in self._alike else output_text(value)
