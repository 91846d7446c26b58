"""What a backup says of itself: `docs/archive-format.md`, section 5."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from engine.catalog import Entity
from engine.errors import DataLoss, NotFound

FORMAT = 1
"""Of a full backup."""
INCREMENT_FORMAT = 2
SETTINGS = "settings"
"""The name of the stream that holds the control schema's own rows."""


@dataclass(frozen=True)
class Column:
    """One column of a stream: its name, its type as it is declared, that type without domains, whether it is secret."""

    name: str
    type: str
    storage_type: str
    secret: bool


@dataclass(frozen=True)
class BackedSequence:
    """A sequence behind a column, as it stood soon after the snapshot; `name` is qualified and quoted."""

    name: str
    column: str
    last_value: int
    is_called: bool
    increment: int


@dataclass(frozen=True)
class Reference:
    """A foreign key of the entity."""

    name: str
    columns: tuple[str, ...]
    target_schema: str
    target_table: str
    target_columns: tuple[str, ...]


class Proof(StrEnum):
    """How an increment knows what has changed: `docs/archive-format.md`, section 6."""

    CONTENT = "CONTENT"
    CANDIDATES = "CANDIDATES"


@dataclass(frozen=True)
class Delta:
    """What an increment holds of an entity: `rows` in its own stream, and the number of the parent's rows that are
    gone, whose list has the digest `gone_sha256`."""

    rows: int
    gone: int
    gone_sha256: str
    proof: str


@dataclass(frozen=True)
class Parent:
    """The backup that an increment is one of; `checksum` is its manifest's, in hexadecimal."""

    backup_id: uuid.UUID
    artifact_id: uuid.UUID
    checksum: str


@dataclass(frozen=True)
class Cut:
    """Where a snapshot lies among the transactions: its xmin, with the epoch, on this timeline, in the database of this
    OID, of a server that runs since then."""

    xmin: int
    timeline: int
    database: int
    started: int
    """Microseconds since 1970."""


@dataclass(frozen=True)
class BackedEntity:
    """One entity of a backup: where its rows were, what its stream holds, and what proves it. Of an increment `rows`,
    `bytes` and `fingerprint` are of all rows at its moment, `sha256` is of its own stream."""

    entity: str
    schema: str
    table: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    schema_fingerprint: str
    rows: int
    bytes: int
    sha256: str
    fingerprint: int
    sequences: tuple[BackedSequence, ...]
    references: tuple[Reference, ...]
    heaps: tuple[tuple[int, ...], ...] = ()
    """OID and filenode of each table that holds its rows, and the numbers of the columns in it; empty where candidates
    may not be told by them."""
    delta: Delta | None = None
    """Of an increment."""

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True)
class Segment:
    """One segment: its stream, the last part of its object's name, bytes of its block, and what its part must be."""

    stream: str
    name: str
    bytes: int
    length: int
    stored: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A backup's own word. Only what stands here is known of its segments."""

    backup_id: uuid.UUID
    artifact_id: uuid.UUID
    backup_type: str
    trigger_type: str
    name: str
    created_at: datetime
    snapshot_at: datetime
    requested_by: dict[str, str]
    database: dict[str, str]
    seed: int
    entities: tuple[BackedEntity, ...]
    settings: dict[str, Any]
    """`{rows, sha256}`."""
    segments: tuple[Segment, ...]
    not_covered: tuple[dict[str, str], ...]
    parent: Parent | None = None
    cut: Cut | None = None

    @property
    def format(self) -> int:
        return FORMAT if self.parent is None else INCREMENT_FORMAT

    def of_table(self, schema: str, table: str) -> BackedEntity | None:
        """The entity of this table: in another backup of the chain a catalog file may have called it otherwise."""
        return next((e for e in self.entities if (e.schema, e.table) == (schema, table)), None)

    def entity(self, name: str) -> BackedEntity | None:
        return next((e for e in self.entities if e.entity == name), None)

    def stream_of(self, entity: BackedEntity) -> str:
        return str(self.entities.index(entity))

    def gone_of(self, entity: BackedEntity) -> str:
        """The stream of the parent's rows that are not the entity's any more."""
        return f"{self.stream_of(entity)}.gone"

    def numbered(self, stream: str) -> list[tuple[int, Segment]]:
        """The stream's segments with their numbers, in order."""
        return [(number, segment) for number, segment in enumerate(self.segments) if segment.stream == stream]

    @property
    def stored_bytes(self) -> int:
        """Of all segments, sealed."""
        return sum(segment.stored for segment in self.segments)

    def stored_of(self, entity: BackedEntity) -> int:
        streams = (self.stream_of(entity), self.gone_of(entity))
        return sum(segment.stored for segment in self.segments if segment.stream in streams)

    def encoded(self) -> bytes:
        """The JSON whose SHA-256 is the backup's checksum."""
        record = asdict(self) | {
            "format": self.format,
            "backup_id": str(self.backup_id),
            "artifact_id": str(self.artifact_id),
            "created_at": self.created_at.isoformat(),
            "snapshot_at": self.snapshot_at.isoformat(),
        }
        for entity in record["entities"]:
            entity["fingerprint"] = str(entity["fingerprint"])
            if entity["delta"] is None:
                del entity["delta"]
        if self.parent is None:
            del record["parent"]
        else:
            record["parent"] |= {
                "backup_id": str(self.parent.backup_id),
                "artifact_id": str(self.parent.artifact_id),
            }
        if self.cut is None:
            del record["cut"]
        return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def decoded(cls, data: bytes) -> Manifest:
        """Raises:
        DataLoss: BACKUP_DAMAGED for what is no manifest; BACKUP_FORMAT for one of a format we do not know.
        """
        try:
            record = json.loads(data)
            found = record.pop("format")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataLoss("backup: its manifest is not one", reason="BACKUP_DAMAGED") from None
        if found not in (FORMAT, INCREMENT_FORMAT):
            raise DataLoss(
                f"backup: found format {found}, expected {FORMAT} or {INCREMENT_FORMAT}", reason="BACKUP_FORMAT"
            )
        try:
            manifest = cls(
                **record
                | {
                    "backup_id": uuid.UUID(record["backup_id"]),
                    "artifact_id": uuid.UUID(record["artifact_id"]),
                    "created_at": datetime.fromisoformat(record["created_at"]),
                    "snapshot_at": datetime.fromisoformat(record["snapshot_at"]),
                    "entities": tuple(map(_entity, record["entities"])),
                    "segments": tuple(Segment(**segment) for segment in record["segments"]),
                    "not_covered": tuple(record["not_covered"]),
                    "parent": _parent(record.get("parent")),
                    "cut": Cut(**record["cut"]) if "cut" in record else None,
                }
            )
        except (ValueError, KeyError, TypeError):
            raise DataLoss("backup: its manifest lacks something, or holds too much", reason="BACKUP_DAMAGED") from None
        increments = {entity.delta is not None for entity in manifest.entities}
        if manifest.format != found or not increments <= {manifest.parent is not None}:
            raise DataLoss("backup: its manifest is half an increment's", reason="BACKUP_DAMAGED")
        return manifest


def not_held(name: str) -> NotFound:
    """Raised where an entity is asked for that the backup lacks: ENTITY_UNKNOWN."""
    return NotFound(
        f"entity: the backup holds no {name[:80]!r}", reason="ENTITY_UNKNOWN", metadata={"entity": name[:80]}
    )


def checksum_of(encoded: bytes) -> bytes:
    return hashlib.sha256(encoded).digest()


def columns_of(entity: Entity) -> tuple[Column, ...]:
    """The columns that a backup of the entity holds: all that are not generated."""
    return tuple(Column(f.column, f.type, f.storage_type, f.secret) for f in entity.stored)


def references_of(entity: Entity) -> tuple[Reference, ...]:
    return tuple(
        Reference(k.name, k.columns, k.target_schema, k.target_table, k.target_columns) for k in entity.references
    )


def _entity(record: dict[str, Any]) -> BackedEntity:
    return BackedEntity(
        **record
        | {
            "columns": tuple(Column(**column) for column in record["columns"]),
            "key": tuple(record["key"]),
            "fingerprint": int(record["fingerprint"]),
            "sequences": tuple(BackedSequence(**sequence) for sequence in record["sequences"]),
            "references": tuple(
                Reference(
                    r["name"],
                    _texts(r["columns"]),
                    r["target_schema"],
                    r["target_table"],
                    _texts(r["target_columns"]),
                )
                for r in record["references"]
            ),
            "heaps": tuple(tuple(map(int, heap)) for heap in record.get("heaps", ())),
            "delta": Delta(**record["delta"]) if "delta" in record else None,
        }
    )


def _parent(record: dict[str, str] | None) -> Parent | None:
    if record is None:
        return None
    return Parent(uuid.UUID(record["backup_id"]), uuid.UUID(record["artifact_id"]), record["checksum"])


def _texts(found: Sequence[str]) -> tuple[str, ...]:
    return tuple(found)
