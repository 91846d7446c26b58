"""One backup, opened: its manifest, and its streams, every byte verified before it is handed out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import zstandard

from engine.artifacts.kinds import ArtifactKind
from engine.artifacts.parts import Expected, PartVault
from engine.backups.lines import positions_of, without
from engine.backups.manifest import SETTINGS, BackedEntity, Delta, Manifest, Segment
from engine.backups.segments import segment_name
from engine.crypto.keyring import Wrapped
from engine.crypto.sealing import PartIdentity
from engine.errors import DataLoss, NotFound
from engine.storage import Storage

AHEAD = 2
"""Segments that are opened while the caller uses another: 24 MB."""


class Archive:
    """Made by `Repository.open`; several threads may read streams of it, each its own."""

    def __init__(
        self,
        storage: Storage,
        vault: PartVault,
        manifest: Manifest,
        checksum: bytes,
        wraps: Sequence[Wrapped],
        parent: Archive | None = None,
    ) -> None:
        self.manifest = manifest
        self.checksum = checksum
        """SHA-256 of the manifest."""
        self.parent = parent
        """The backup that this one is an increment of."""
        self._name = f"backup {manifest.backup_id}"
        self._storage = storage
        self._vault = vault
        self._wraps = wraps

    def rows(self, entity: BackedEntity, check: Callable[[], None] = lambda: None) -> Iterator[bytes]:
        """All rows of the entity at the backup's moment, block by block: COPY text, cut anywhere; an increment's behind
        those of its parent that are not gone. `check` is called for each block read, and may raise.

        Raises:
            DataLoss: PART_DAMAGED, PART_MISSING, KEY_WRONG, BACKUP_DAMAGED; the last at the end of the stream, when it
                is not what the manifest says: what was done with it must be undone.
            FailedPrecondition: KEY_UNKNOWN.
        """
        delta = entity.delta
        if delta is None:
            yield from self._stream(self.manifest.stream_of(entity), entity.rows, entity.sha256, check)
            return
        rows = 0
        for block in self._merged(entity, delta, check):
            rows += block.count(b"\n")
            yield block
        if rows != entity.rows:
            raise DataLoss(
                f"{entity.entity}: found {rows} rows in the chain, expected {entity.rows}", reason="BACKUP_DAMAGED"
            )

    @property
    def chain(self) -> list[Archive]:
        """The backups that it needs, from the full one to itself."""
        return [*(self.parent.chain if self.parent is not None else ()), self]

    def _merged(self, entity: BackedEntity, delta: Delta, check: Callable[[], None]) -> Iterator[bytes]:
        assert self.parent is not None, "the manifest of an increment names its parent"
        before = self.parent.manifest.of_table(entity.schema, entity.table)
        if before is None:
            raise DataLoss(f"{entity.entity}: the parent of the backup lacks it", reason="BACKUP_DAMAGED")
        rows: Iterable[bytes] = self.parent.rows(before, check)
        if delta.gone:
            gone = self._stream(self.manifest.gone_of(entity), delta.gone, delta.gone_sha256, check)
            rows = without(rows, positions_of(gone))
        yield from rows
        yield from self._stream(self.manifest.stream_of(entity), delta.rows, entity.sha256, check)

    def settings(self) -> Iterator[bytes]:
        """The control schema's own rows, one JSON object a line. It fails as `rows` does."""
        expected = self.manifest.settings
        return self._stream(SETTINGS, int(expected["rows"]), str(expected["sha256"]), lambda: None)

    def require_present(self, check: Callable[[], None] = lambda: None) -> None:
        """Every object of the chain is there, with its length.

        Raises:
            DataLoss: BACKUP_INCOMPLETE, with the number of those that are not, and the first.
        """
        for archive in self.chain:
            with archive._named():
                archive._require_own(check)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Names this backup in what is found damaged of it: to whoever opened another that builds on it."""
        try:
            yield
        except DataLoss as error:
            error.metadata.setdefault("backup_id", str(self.manifest.backup_id))
            raise

    def _require_own(self, check: Callable[[], None]) -> None:
        folder = segment_name(self.manifest.artifact_id, "")
        found = {}
        for stored in self._storage.list(folder):
            check()
            found[stored.name.removeprefix(folder)] = stored.size
        lacking = [n for n, s in enumerate(self.manifest.segments) if found.get(s.name) != s.stored]
        if lacking:
            first = self.manifest.segments[lacking[0]]
            raise DataLoss(
                f"{self._name}: {len(lacking)} of {len(self.manifest.segments)} segments are missing or of another"
                f" length; the first is segment {lacking[0]}, expected {first.stored} bytes, found"
                f" {found.get(first.name, 'none')}",
                reason="BACKUP_INCOMPLETE",
                metadata={"segment": str(lacking[0]), "lacking": str(len(lacking))},
            )

    def _stream(self, stream: str, rows: int, sha256: str, check: Callable[[], None]) -> Iterator[bytes]:
        digest, lines = hashlib.sha256(), 0
        with self._named():
            for block in self._blocks(self.manifest.numbered(stream)):
                check()
                digest.update(block)
                lines += block.count(b"\n")
                yield block
            if (lines, digest.hexdigest()) != (rows, sha256):
                raise DataLoss(
                    f"{self._name}: the stream {stream} has {lines} rows, or other bytes, expected {rows} and the"
                    " manifest's",
                    reason="BACKUP_DAMAGED",
                )

    def _blocks(self, segments: list[tuple[int, Segment]]) -> Iterator[bytes]:
        with ThreadPoolExecutor(AHEAD, thread_name_prefix="backup-reader") as helper:
            waiting: list[Future[bytes]] = []
            for number, segment in segments:
                waiting.append(helper.submit(self._open, number, segment))
                if len(waiting) > AHEAD:
                    yield waiting.pop(0).result()
            for future in waiting:
                yield future.result()

    def _open(self, number: int, segment: Segment) -> bytes:
        identity = PartIdentity(self.manifest.artifact_id, ArtifactKind.SEGMENT, number)
        name = segment_name(self.manifest.artifact_id, segment.name)
        expected = Expected(name, segment.stored, segment.length, bytes.fromhex(segment.sha256))
        try:
            packed = b"".join(self._vault.open(identity, expected, self._wraps[number]))
        except NotFound:
            raise DataLoss(f"{self._name}: segment {number} is missing", reason="PART_MISSING") from None
        try:
            block = zstandard.ZstdDecompressor().decompress(packed, max_output_size=segment.bytes)
        except zstandard.ZstdError:
            raise DataLoss(f"{self._name}: segment {number} cannot be decompressed", reason="BACKUP_DAMAGED") from None
        if len(block) != segment.bytes:
            raise DataLoss(
                f"{self._name}: segment {number} has another size than it must have", reason="BACKUP_DAMAGED"
            )
        return block
