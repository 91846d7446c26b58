"""Where backups are: storage and key ring alone, without the control schema. `docs/archive-format.md`, section 5."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import zstandard

from engine.artifacts.kinds import ArtifactKind
from engine.artifacts.parts import PartVault
from engine.backups.archive import Archive
from engine.backups.manifest import Manifest, checksum_of
from engine.backups.segments import SegmentWriter
from engine.crypto.keyring import KeyRing, Wrapped
from engine.crypto.sealing import MAX_PART_BYTES, PartIdentity, open_chunks
from engine.errors import AlreadyExists, DataLoss, DataOpsError, FailedPrecondition, NotFound
from engine.storage import Storage

ORPHAN_GRACE = timedelta(hours=24)
"""A folder without a manifest in which nothing is younger is what a dead attempt has left."""

MAX_MANIFEST_BYTES = 1 << 30
KEYS_FORMAT = 1

OPEN_TRIES = 5
"""Looks for a keys object that a rewrap may be replacing: each takes one away only after the next one stands."""


@dataclass(frozen=True)
class _Keys:
    """One generation of a backup's wrapped keys."""

    generation: int
    manifest: list[Wrapped]
    segments: list[Wrapped]


class Repository:
    """The backups of one storage, by artifact id. Safe to share between threads."""

    def __init__(self, storage: Storage, keys: KeyRing, vault: PartVault | None = None) -> None:
        """`vault` is one of the same storage and keys, to share its buffers: 50 MB in each."""
        self._storage = storage
        self._keys = keys
        self._vault = vault or PartVault(storage, keys)

    # --- reading

    def artifact_ids(self) -> Iterator[UUID]:
        """The artifact ids of all backups that exist."""
        for found in self._storage.list("manifests/"):
            folder, _, number = found.name.removeprefix("manifests/").partition("/")
            if number == "0" and (artifact_id := _uuid(folder)) is not None:
                yield artifact_id

    def exists(self, artifact_id: UUID) -> bool:
        return any(
            found.name == _manifest_name(artifact_id, 0) for found in self._storage.list(_manifests(artifact_id))
        )

    def open(self, artifact_id: UUID, checksum: bytes | None = None) -> Archive:
        """The backup, its manifest opened and checked; `checksum` is what is known of it from elsewhere.

        Raises:
            NotFound: BACKUP_GONE when the storage has no such backup.
            FailedPrecondition: KEY_UNKNOWN when the ring lacks a key that any of its parts needs.
            DataLoss: KEY_WRONG, BACKUP_DAMAGED, PART_DAMAGED, BACKUP_FORMAT.
        """
        if not self.exists(artifact_id):
            raise _gone(artifact_id)
        for _ in range(OPEN_TRIES):
            if (found := self._newest(artifact_id, checksum)) is not None:
                return found[0]
        raise DataLoss("backup: found no keys object for it", reason="BACKUP_DAMAGED")

    def _newest(self, artifact_id: UUID, checksum: bytes | None = None) -> tuple[Archive, _Keys] | None:
        """By the newest generation that opens the manifest and all of whose wraps unwrap; where none is such, by the
        newest that opens the manifest, so that what can be read is read. None when a generation went in between, as the
        older ones do at a rewrap: then look again.

        Raises: the failure of the newest generation: it is the one to be mended.
        """
        generations = sorted(self._generations(artifact_id), reverse=True)
        failure: DataOpsError | None = None
        second_best: tuple[Archive, _Keys] | None = None
        for generation in generations:
            try:
                keys = self._read_keys(artifact_id, generation)
                found = self._open(artifact_id, keys, checksum), keys
            except NotFound:
                return None
            except (DataLoss, FailedPrecondition) as error:
                failure = failure or error
                continue
            if len(generations) == 1 or self._unwraps(artifact_id, keys):
                return found
            second_best = second_best or found
        if second_best is None and failure is not None:
            raise failure
        return second_best

    def _open(self, artifact_id: UUID, keys: _Keys, checksum: bytes | None) -> Archive:
        lacking = {w.key_id for w in (*keys.manifest, *keys.segments)} - self._keys.ids
        if lacking:
            raise FailedPrecondition(
                f"backup: its keys are wrapped by {', '.join(sorted(lacking))}, which the key ring lacks",
                reason="KEY_UNKNOWN",
                metadata={"key_id": sorted(lacking)[0]},
            )
        packed = b"".join(
            self._manifest_part(artifact_id, number, wrapped) for number, wrapped in enumerate(keys.manifest)
        )
        try:
            encoded = zstandard.ZstdDecompressor().decompress(packed, max_output_size=MAX_MANIFEST_BYTES)
        except zstandard.ZstdError:
            raise DataLoss("backup: its manifest cannot be decompressed", reason="BACKUP_DAMAGED") from None
        found = checksum_of(encoded)
        if checksum is not None and found != checksum:
            raise DataLoss("backup: the manifest found is not the one that was recorded", reason="BACKUP_DAMAGED")
        manifest = Manifest.decoded(encoded)
        if manifest.artifact_id != artifact_id or len(manifest.segments) != len(keys.segments):
            raise DataLoss("backup: its manifest and its keys do not belong together", reason="BACKUP_DAMAGED")
        return Archive(self._storage, self._vault, manifest, found, keys.segments, self._parent(manifest))

    def _parent(self, manifest: Manifest) -> Archive | None:
        """What the backup is an increment of, opened. The checksums bind one to the other, so no chain is a ring."""
        named = manifest.parent
        if named is None:
            return None
        try:
            parent = self.open(named.artifact_id, bytes.fromhex(named.checksum))
        except NotFound:
            raise DataLoss(
                f"backup: its parent, the backup {named.backup_id}, is not there",
                reason="BACKUP_INCOMPLETE",
                metadata={"backup_id": str(named.backup_id)},
            ) from None
        except DataLoss as error:
            error.metadata.setdefault("backup_id", str(named.backup_id))
            raise
        if parent.manifest.seed != manifest.seed:
            raise DataLoss("backup: its fingerprints are of another seed than its parent's", reason="BACKUP_DAMAGED")
        return parent

    def _manifest_part(self, artifact_id: UUID, number: int, wrapped: Wrapped) -> bytes:
        """A part of the manifest; what is not known of it beforehand is held by its seal and the whole's SHA-256."""
        identity = PartIdentity(artifact_id, ArtifactKind.MANIFEST, number)
        data_key = self._keys.unwrap(wrapped, identity.context())
        try:
            sealed = self._storage.get(_manifest_name(artifact_id, number))
        except NotFound:
            raise DataLoss(f"backup: part {number} of its manifest is missing", reason="BACKUP_DAMAGED") from None
        return b"".join(open_chunks(identity, data_key, sealed))

    def _generations(self, artifact_id: UUID) -> list[int]:
        names = (found.name.rpartition("/")[2] for found in self._storage.list(_keys_folder(artifact_id)))
        return [int(name) for name in names if name.isdigit()]

    def _read_keys(self, artifact_id: UUID, generation: int) -> _Keys:
        try:
            record = json.loads(self._storage.get(_keys_name(artifact_id, generation)))
            if (record["format"], record["artifact_id"]) == (KEYS_FORMAT, str(artifact_id)):
                return _Keys(generation, _wraps(record["manifest"]), _wraps(record["segments"]))
        except (
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
        ):  # it is in clear: whoever writes there chooses its form
            pass  # as one of another format, or of another backup
        raise DataLoss(f"backup: keys object {generation} is not one of this backup", reason="BACKUP_DAMAGED")

    # --- writing

    def writer(self, artifact_id: UUID) -> SegmentWriter:
        """Writes the segments of a backup that is being made."""
        return SegmentWriter(self._vault, artifact_id)

    def publish(self, manifest: Manifest, segments: Sequence[Wrapped]) -> Archive:
        """Keys, then the manifest, part 0 last; then the backup is opened again from storage and its objects counted.

        Raises:
            DataLoss: what `open` and `Archive.require_present` raise; then nothing of it is left.
        """
        encoded, artifact_id = manifest.encoded(), manifest.artifact_id
        packed = zstandard.ZstdCompressor(level=3).compress(encoded)
        pieces = [packed[at : at + MAX_PART_BYTES] for at in range(0, len(packed), MAX_PART_BYTES)]
        sealed = [self._seal_manifest(artifact_id, number, piece) for number, piece in enumerate(pieces)]
        self._write_keys(artifact_id, _Keys(1, [wrapped for _, wrapped in sealed], list(segments)))
        for number, (data, _) in reversed(list(enumerate(sealed))):
            self._storage.put(_manifest_name(artifact_id, number), data)
        try:
            archive = self.open(artifact_id, checksum_of(encoded))
            archive.require_present()
        except DataLoss:
            self.delete(artifact_id)  # nobody shall find what cannot be read
            raise
        return archive

    def _seal_manifest(self, artifact_id: UUID, number: int, piece: bytes) -> tuple[bytes, Wrapped]:
        return self._vault.seal(PartIdentity(artifact_id, ArtifactKind.MANIFEST, number), piece)

    def _write_keys(self, artifact_id: UUID, keys: _Keys) -> None:
        record = {
            "format": KEYS_FORMAT,
            "artifact_id": str(artifact_id),
            "manifest": _listed(keys.manifest),
            "segments": _listed(keys.segments),
        }
        self._storage.put(_keys_name(artifact_id, keys.generation), json.dumps(record, separators=(",", ":")).encode())

    # --- keys

    def key_ids(self, artifact_id: UUID) -> dict[str, int]:
        """How many parts of the backup each key wraps, by the newest generation that can be read."""
        for generation in sorted(self._generations(artifact_id), reverse=True):
            try:
                keys = self._read_keys(artifact_id, generation)
            except (DataLoss, NotFound):
                continue
            wraps = [*keys.manifest, *keys.segments]
            return {key_id: sum(w.key_id == key_id for w in wraps) for key_id in {w.key_id for w in wraps}}
        return {}

    def rewrap(self, artifact_id: UUID) -> int:
        """Wrap the backup's data keys under the active key; how many were under another. No other object is touched.

        It may be repeated, after a crash too: older generations are deleted only after the newest was read back from
        storage, has opened the manifest, and each of its wraps was unwrapped.

        Raises: as `open`: a backup whose keys do not all unwrap is not touched. DataLoss: KEY_WRONG.
        """
        if not self.exists(artifact_id) or (found := self._newest(artifact_id)) is None:
            raise _gone(artifact_id)
        keys, generations = found[1], self._generations(artifact_id)
        others = sum(w.key_id != self._keys.active_id for w in (*keys.manifest, *keys.segments))
        newest = keys.generation
        if others:
            newest = max(generations) + 1
            new = _Keys(
                newest,
                [self._rewrapped(artifact_id, ArtifactKind.MANIFEST, n, w) for n, w in enumerate(keys.manifest)],
                [self._rewrapped(artifact_id, ArtifactKind.SEGMENT, n, w) for n, w in enumerate(keys.segments)],
            )
            with suppress(AlreadyExists):  # of another rewrap at the same time; it is proven like ours
                self._write_keys(artifact_id, new)
        self._require_keys(artifact_id, newest)
        for generation in generations:
            if generation < newest:
                self._storage.delete(_keys_name(artifact_id, generation))
        return others

    def _require_keys(self, artifact_id: UUID, generation: int) -> None:
        try:
            keys = self._read_keys(artifact_id, generation)
        except NotFound:  # of another rewrap, which has a newer one
            return self._require_keys(artifact_id, max(self._generations(artifact_id)))
        self._open(artifact_id, keys, None)
        if not self._unwraps(artifact_id, keys):
            raise DataLoss(
                f"backup: keys object {generation} was written and does not unwrap; the older ones stay",
                reason="KEY_WRONG",
                metadata={"artifact_id": str(artifact_id)},
            )
        return None

    def _unwraps(self, artifact_id: UUID, keys: _Keys) -> bool:
        try:
            for kind, wraps in ((ArtifactKind.MANIFEST, keys.manifest), (ArtifactKind.SEGMENT, keys.segments)):
                for number, wrapped in enumerate(wraps):
                    self._keys.unwrap(wrapped, PartIdentity(artifact_id, kind, number).context())
        except (DataLoss, FailedPrecondition):
            return False
        return True

    def _rewrapped(self, artifact_id: UUID, kind: ArtifactKind, number: int, wrapped: Wrapped) -> Wrapped:
        context = PartIdentity(artifact_id, kind, number).context()
        if wrapped.key_id == self._keys.active_id:
            return wrapped
        return self._keys.wrap(self._keys.unwrap(wrapped, context), context)

    # --- deleting

    def unpublish(self, artifact_id: UUID) -> None:
        """From here on the backup does not exist; `delete` takes what is left of it. One object, so it is quick."""
        self._storage.delete(_manifest_name(artifact_id, 0))

    def delete(self, artifact_id: UUID) -> int:
        """Delete all objects of one backup, or of an attempt at one, in the opposite order of writing; how many. It may
        be repeated."""
        manifests = [found.name for found in self._storage.list(_manifests(artifact_id))]
        manifests.sort(key=lambda name: (name != _manifest_name(artifact_id, 0), name))
        keys = [found.name for found in self._storage.list(_keys_folder(artifact_id))]
        segments = [found.name for found in self._storage.list(_segments(artifact_id))]
        for name in (*manifests, *keys, *segments):
            self._storage.delete(name)
        return len(manifests) + len(keys) + len(segments)

    def orphans(self, now: datetime, known: Callable[[], Collection[UUID]]) -> list[UUID]:
        """Artifact ids of which there are objects and no manifest part 0, nothing younger than a day, and no record.

        `known`, the artifact ids of all records, is asked after the objects were listed: whoever writes an object has
        made itself known before, so that no clock decides over what is being made.
        """
        newest: dict[UUID, datetime] = {}
        for prefix in ("segments/", "keys/", "manifests/"):
            for found in self._storage.list(prefix):
                artifact_id = _uuid(found.name.removeprefix(prefix).partition("/")[0])
                if artifact_id is not None:
                    newest[artifact_id] = max(found.modified, newest.get(artifact_id, found.modified))
        old = {artifact_id for artifact_id, modified in newest.items() if modified < now - ORPHAN_GRACE}
        old = old.difference(self.artifact_ids()) if old else old
        return sorted(old.difference(known())) if old else []


def _gone(artifact_id: UUID) -> NotFound:
    return NotFound(
        "backup: the storage has none of this id", reason="BACKUP_GONE", metadata={"artifact_id": str(artifact_id)}
    )


def _manifests(artifact_id: UUID) -> str:
    return f"manifests/{artifact_id.hex}/"


def _manifest_name(artifact_id: UUID, number: int) -> str:
    return f"{_manifests(artifact_id)}{number}"


def _keys_folder(artifact_id: UUID) -> str:
    return f"keys/{artifact_id.hex}/"


def _keys_name(artifact_id: UUID, generation: int) -> str:
    return f"{_keys_folder(artifact_id)}{generation:08d}"


def _segments(artifact_id: UUID) -> str:
    return f"segments/{artifact_id.hex}/"


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _wraps(record: Sequence[Sequence[str]]) -> list[Wrapped]:
    wraps = [Wrapped(key_id, base64.b64decode(data, validate=True)) for key_id, data in record]
    if not all(isinstance(wrapped.key_id, str) for wrapped in wraps):
        raise TypeError("a key id is text")
    return wraps


def _listed(wraps: Sequence[Wrapped]) -> list[list[str]]:
    return [[w.key_id, base64.b64encode(w.data).decode()] for w in wraps]
