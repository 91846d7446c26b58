"""`dataops-admin rescue`: backups by storage and key ring alone, where there is no control schema any more."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy.exc import ArgumentError

from engine.backups.archive import Archive
from engine.backups.manifest import Manifest
from engine.backups.repository import Repository
from engine.crypto.keyring import KeyRing
from engine.db.platform import Connection, Platform
from engine.errors import DataOpsError, InvalidRequest, NotFound
from engine.storage import storage_from

TELL_SECONDS = 0.5


def open_repository(artifacts: str, key_file: Path) -> Repository:
    """The backups of a folder, which may be a copy and may be read-only: nothing is made in it.

    Raises:
        InvalidRequest: STORAGE_SETTING, KEYS_MISSING, KEYS_INVALID.
    """
    return Repository(storage_from(artifacts, existing=True), KeyRing.from_file(key_file))


class Terminal:
    """Work that is no job's: a person waits for it, Ctrl-C ends it. It is an `engine.backups.work.Work`."""

    def __init__(self, dsn: str = "", out: TextIO | None = None) -> None:
        """Raises: InvalidRequest: CONFIG_INVALID for a DSN that is none."""
        self._out = sys.stderr if out is None else out
        self._stage, self._rows, self._told = "", 0, 0.0
        try:
            self._platform = Platform(dsn) if dsn else None
        except ArgumentError:
            raise InvalidRequest(
                "dsn: expected postgresql://user@host:port/database", reason="CONFIG_INVALID"
            ) from None

    def check(self) -> None:
        """Python raises KeyboardInterrupt by itself."""

    def say(self, text: str) -> None:
        """A line of its own."""
        self._out.write(f"{text}\n")
        self._out.flush()

    def stage(self, name: str, *, rows: int | None = None, bytes: int | None = None) -> None:  # noqa: A002
        self._stage, self._rows, self._told = name, rows or 0, time.monotonic()

    def progress(self, *, rows: int | None = None, bytes: int | None = None) -> None:  # noqa: A002
        if time.monotonic() - self._told < TELL_SECONDS or not self._out.isatty():
            return
        self._told = time.monotonic()
        of = f" of about {self._rows:,}" if self._rows else ""
        self._out.write(f"\r{self._stage}: {rows or 0:,} rows{of}  ")
        self._out.flush()

    def platform(self, purpose: str, **settings: Any) -> AbstractContextManager[Connection]:
        """A pinned session to the database of `--dsn`.

        Raises:
            InvalidRequest: CONFIG_INVALID where none was given; Unavailable: PLATFORM_UNREACHABLE;
            FailedPrecondition: PLATFORM_TOO_OLD, POOLER_REFUSED.
        """
        if self._platform is None:
            raise InvalidRequest("dsn: found none, expected the platform database's", reason="CONFIG_INVALID")
        return self._platform.connect(purpose, **settings)


@dataclass(frozen=True)
class Found:
    """One backup of the storage: opened, or why it cannot be."""

    artifact_id: uuid.UUID
    archive: Archive | None = None
    error: DataOpsError | None = None

    @property
    def lacks_key(self) -> bool:
        """Whether it is the ring that is wrong: of the backup itself nothing is known then."""
        return self.error is not None and self.error.reason == "KEY_UNKNOWN"


def find_all(repository: Repository) -> list[Found]:
    """Every backup, newest first; the damaged ones at the end. Objects are counted, contents not read."""
    good, damaged = [], []
    for artifact_id in repository.artifact_ids():
        archive = None
        try:
            archive = repository.open(artifact_id)
            archive.require_present()
        except DataOpsError as error:
            damaged.append(Found(artifact_id, archive, error))
        else:
            good.append(Found(artifact_id, archive))
    newest_first = sorted(good, key=lambda f: f.archive.manifest.snapshot_at if f.archive else 0, reverse=True)
    return newest_first + damaged


def pick(repository: Repository, name: str) -> Archive:
    """The backup whose id, or artifact id, is `name` or begins with it.

    Raises:
        NotFound: BACKUP_UNKNOWN when there is none or more than one; what `Repository.open` raises of it.
    """
    wanted = name.lower().replace("-", "")
    matches, closed = [], 0
    for found in find_all(repository):
        ids = [found.artifact_id.hex, found.archive.manifest.backup_id.hex if found.archive else ""]
        if wanted and any(known.startswith(wanted) for known in ids):
            matches.append(found)
        closed += found.lacks_key
    if len(matches) != 1:
        others = f"; {closed} cannot be opened by this ring (KEY_UNKNOWN)" if closed else ""
        raise NotFound(
            f"backup: found {len(matches)} whose id begins with {name[:40]!r}, expected one{others}",
            reason="BACKUP_UNKNOWN",
        )
    (match,) = matches
    if match.archive is None:
        assert match.error is not None
        raise match.error
    return match.archive


# --- for people and programs


def record_of(found: Found) -> dict[str, Any]:
    """One backup of a list, for programs."""
    record: dict[str, Any] = {"artifact_id": str(found.artifact_id), "damaged": "", "cannot_be_opened": ""}
    if found.error is not None:
        record["cannot_be_opened" if found.lacks_key else "damaged"] = str(found.error)
    if found.archive is not None:
        manifest = found.archive.manifest
        record |= {
            "backup_id": str(manifest.backup_id),
            "name": manifest.name,
            "backup_type": manifest.backup_type,
            "parent_backup_id": str(manifest.parent.backup_id) if manifest.parent is not None else "",
            "trigger_type": manifest.trigger_type,
            "snapshot_at": manifest.snapshot_at.isoformat(),
            "entities": len(manifest.entities),
            "rows": sum(entity.rows for entity in manifest.entities),
            "size_bytes": manifest.stored_bytes,
        }
    return record


def lines_of(found: list[Found]) -> Iterator[str]:
    """A list for people."""
    yield (
        f"{'backup':<36}  {'type':<11}  {'trigger':<11}  {'snapshot, UTC':<16}  {'entities':>8}  {'rows':>13}"
        f"  {'size':>9}  name"
    )
    for one in found:
        if one.archive is not None:
            manifest = one.archive.manifest
            yield (
                f"{manifest.backup_id}  {manifest.backup_type:<11}  {manifest.trigger_type:<11}"
                f"  {manifest.snapshot_at:%Y-%m-%d %H:%M}  {len(manifest.entities):>8,}"
                f"  {sum(e.rows for e in manifest.entities):>13,}"
                f"  {size(manifest.stored_bytes):>9}  {manifest.name}"
            )
        if one.error is not None:
            about = str(one.archive.manifest.backup_id) if one.archive else f"of artifact {one.artifact_id}"
            if one.lacks_key:
                yield f"  {about} cannot be opened by this ring ({one.error})"
            else:
                yield f"  DAMAGED {about}: {one.error}"


def describe(archive: Archive) -> Iterator[str]:
    """A manifest for people."""
    manifest = archive.manifest
    yield from _head(manifest, archive.checksum)
    yield ""
    yield f"{'entity':<32}  {'rows':>13}  {'size':>9}  key"
    for entity in manifest.entities:
        stored = size(manifest.stored_of(entity))
        yield f"{entity.entity:<32}  {entity.rows:>13,}  {stored:>9}  {', '.join(entity.key) or '(none)'}"
        for column in entity.columns:
            yield f"    {column.name}  {column.type}{'  secret' if column.secret else ''}"
        for sequence in entity.sequences:
            yield f"    sequence {sequence.name} of {sequence.column}, at {sequence.last_value}"
        for reference in entity.references:
            target = f"{reference.target_schema}.{reference.target_table}"
            yield f"    {', '.join(reference.columns)} refers to {target} ({', '.join(reference.target_columns)})"
    if manifest.not_covered:
        yield ""
        yield "not in it:"
        yield from (f"    {other['name']}: {other['why']}" for other in manifest.not_covered)


def _head(manifest: Manifest, checksum: bytes) -> Iterator[str]:
    by = manifest.requested_by
    database = manifest.database
    yield f"backup      {manifest.backup_id}"
    yield f"artifact    {manifest.artifact_id}"
    yield f"name        {manifest.name}"
    yield f"trigger     {manifest.trigger_type}, asked for {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC"
    yield f"            by {by.get('issuer', '')} {by.get('subject', '')} ({by.get('principal_id', '')})"
    if manifest.parent is not None:
        yield f"parent      {manifest.parent.backup_id}"
    yield f"rows of     {manifest.snapshot_at:%Y-%m-%d %H:%M:%S} UTC"
    yield (
        f"database    {database.get('name', '')}, PostgreSQL {int(database.get('server_version', '0')) // 10000},"
        f" {database.get('encoding', '')}, system {database.get('system_identifier', '')}"
    )
    yield f"checksum    {checksum.hex()}"
    yield f"segments    {len(manifest.segments):,}, {size(manifest.stored_bytes)}"


def size(count: int) -> str:
    """In the unit that gives three digits or four."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"
