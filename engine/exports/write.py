"""Writing an export's file from one snapshot: COPY by COPY into a layout, a compressor or a bundle, an artifact."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from engine.artifacts import ArtifactWriter
from engine.catalog import Entity
from engine.catalog.order import reference_order
from engine.db.copy import CopyOut
from engine.db.platform import Connection
from engine.errors import FailedPrecondition
from engine.exports.files import Compressor, layout_of
from engine.exports.model import Compression, ExportFormat, ExportOptions, ExportType, Selection
from engine.exports.query import csv_copy, exported_fields, json_copy
from engine.exports.selection import rows_of
from engine.formats.bundle import BundleEntity, BundleField, BundleWriter, Manifest, Member, Sink, member_name

if TYPE_CHECKING:
    from engine.jobs.run import JobRun


@dataclass(frozen=True)
class Wanted:
    """What an export's row asks for. `selection` is None unless it is PARTIAL."""

    export_id: uuid.UUID
    export_type: ExportType
    entities: tuple[str, ...]
    format: ExportFormat
    options: ExportOptions
    selection: Selection | None
    created_at: datetime


@dataclass(frozen=True)
class Written:
    """What was written of one entity; file and digest (hexadecimal) only inside a bundle."""

    entity: str
    rows: int
    file: str = ""
    sha256: str = ""

    def as_record(self) -> dict[str, Any]:
        """The form that the export's row keeps."""
        return {"entity": self.entity, "file_name": self.file, "record_count": self.rows, "sha256": self.sha256}


class _Meter:
    """Rows and bytes so far, over all entities."""

    def __init__(self, run: JobRun, writer: ArtifactWriter) -> None:
        self._run, self._writer = run, writer
        self.rows = 0

    def add(self, rows: int) -> None:
        """Raises interrupts."""
        self.rows += rows
        self._run.progress(rows=self.rows, bytes=self._writer.size)


def write_export(
    run: JobRun,
    connection: Connection,
    wanted: Wanted,
    entities: list[Entity],
    snapshot_at: datetime,
    writer: ArtifactWriter,
) -> list[Written]:
    """The whole file; what was written of each entity, in the file's order. The caller closes the artifact."""
    meter = _Meter(run, writer)
    if wanted.format is ExportFormat.BUNDLE:
        return _write_bundle(connection, wanted, entities, snapshot_at, writer, meter)
    return [_write_one(connection, wanted, entities[0], writer, meter)]


def _write_one(
    connection: Connection, wanted: Wanted, entity: Entity, writer: ArtifactWriter, meter: _Meter
) -> Written:
    compression = wanted.options.compression
    compressor = Compressor(writer, compression) if compression is not Compression.NONE else None
    sink: Sink = compressor or writer
    layout = layout_of(wanted.format)
    sink.write(layout.begin())
    rows = _copy_out(
        connection, _query(wanted, entity, connection), lambda block: sink.write(layout.rows(block)), meter
    )
    sink.write(layout.end())
    if compressor is not None:
        compressor.finish()
    return Written(entity.name, rows)


def _write_bundle(
    connection: Connection,
    wanted: Wanted,
    entities: list[Entity],
    snapshot_at: datetime,
    writer: ArtifactWriter,
    meter: _Meter,
) -> list[Written]:
    described: list[BundleEntity] = []
    with BundleWriter(writer, snapshot_at) as bundle:
        for number, entity in enumerate(reference_order(entities), start=1):
            with bundle.member(member_name(number, entity.name)) as member:
                rows = _copy_out(connection, _query(wanted, entity, connection), member.write, meter)
            described.append(_described(entity, wanted, member, rows))
        bundle.close(
            Manifest(
                created_at=wanted.created_at.isoformat(),
                snapshot_at=snapshot_at.isoformat(),
                export_type=wanted.export_type.value,
                source={
                    "product": "dataops",
                    "export_id": str(wanted.export_id),
                    "database": f"PostgreSQL {connection.info.server_version // 10000}",
                },
                entities=tuple(described),
            )
        )
    return [Written(found.entity, found.rows, found.file, found.sha256) for found in described]


def _described(entity: Entity, wanted: Wanted, member: Member, rows: int) -> BundleEntity:
    return BundleEntity(
        entity=entity.name,
        file=member.file,
        rows=rows,
        bytes=member.bytes,
        sha256=member.sha256,
        fields=tuple(
            BundleField(name=field.name, type=field.type, generated=field.generated)
            for field in exported_fields(entity, wanted.options)
        ),
        key=tuple(entity.column(column).name for column in entity.key),
        schema_fingerprint=entity.fingerprint,
        secret_fields=tuple(field.name for field in entity.fields if field.secret),
    )


def _query(wanted: Wanted, entity: Entity, connection: Connection) -> sql.Composed:
    fields, rows = exported_fields(entity, wanted.options), rows_of(entity, wanted.selection)
    if wanted.format is ExportFormat.CSV:
        return csv_copy(entity, fields, wanted.options, rows, _encoding(connection))
    return json_copy(entity, fields, rows)


def _copy_out(connection: Connection, query: sql.Composed, take: Callable[[bytes], object], meter: _Meter) -> int:
    """Streams one COPY; returns its rows, as PostgreSQL counted them (the header is none)."""
    copy, before = CopyOut(connection, query), meter.rows
    try:
        for lines in copy:
            take(b"".join(lines))
            meter.add(len(lines))
    except (psycopg.errors.CharacterNotInRepertoire, psycopg.errors.UntranslatableCharacter):
        # of a database in SQL_ASCII, which holds any bytes; the server's text would quote them
        raise FailedPrecondition(
            f"rows: found bytes that are no UTF-8 after {meter.rows - before:,} rows or more; the platform database's"
            f" encoding is {_encoding(connection)}",
            reason="TEXT_NOT_UTF8",
        ) from None
    meter.add(before + copy.rows - meter.rows)
    return copy.rows


def _encoding(connection: Connection) -> str:
    """The database's, in PostgreSQL's spelling."""
    return connection.info.parameter_status("server_encoding") or "UTF8"
