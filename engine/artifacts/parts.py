"""Parts between plaintext and storage: seal, check, store; fetch, open, verify."""

from __future__ import annotations

import hashlib
import mmap
import secrets
from dataclasses import dataclass

from engine.artifacts.buffers import BufferPool
from engine.crypto.keyring import KeyRing, Wrapped
from engine.crypto.sealing import (
    PartIdentity,
    check_sealed,
    new_data_key,
    open_chunks,
    seal,
    sealed_length,
)
from engine.db.models import ArtifactPartRow
from engine.errors import DataLoss
from engine.storage import Storage

PREFIX = "parts/"


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part that is durable and has no row yet."""

    name: str
    stored_length: int
    wrapped: Wrapped


@dataclass(frozen=True, slots=True)
class Expected:
    """What must be found of a part: its object and that one's length, then length and SHA-256 of its plaintext."""

    name: str
    stored_length: int
    length: int
    sha256: bytes


class PartVault:
    """Seals parts into a storage and opens them again. Safe to share between threads."""

    def __init__(self, storage: Storage, keys: KeyRing) -> None:
        self.storage = storage
        self.buffers = BufferPool()
        self._keys = keys

    def put(
        self, identity: PartIdentity, plaintext: memoryview, scratch: mmap.mmap, name: str | None = None
    ) -> StoredPart:
        """Seal `plaintext`, open it again, and store it durably, under a new random name if none is given.

        `scratch`, of `buffers`, is overwritten; the caller uses it for one part at a time.

        Raises:
            InternalError: SELF_CHECK_FAILED, with nothing stored.
        """
        with memoryview(scratch) as room:
            length, wrapped = self._seal(identity, plaintext, room)
            with room[:length] as sealed:
                name = name or new_name()
                self.storage.put(name, sealed)
        return StoredPart(name, length, wrapped)

    def seal(self, identity: PartIdentity, plaintext: bytes) -> tuple[bytes, Wrapped]:
        """A part sealed and opened again, not stored yet, for what must be stored in an order of its own."""
        room = bytearray(sealed_length(len(plaintext)))
        _, wrapped = self._seal(identity, memoryview(plaintext), memoryview(room))
        return bytes(room), wrapped

    def _seal(self, identity: PartIdentity, plaintext: memoryview, room: memoryview) -> tuple[int, Wrapped]:
        data_key = new_data_key()
        wrapped = self._keys.wrap(data_key, identity.context())
        length = seal(identity, wrapped.key_id, data_key, plaintext, room)
        with room[:length] as sealed:
            check_sealed(identity, self._keys.unwrap(wrapped, identity.context()), plaintext, sealed)
        return length, wrapped

    def get(self, kind: str, row: ArtifactPartRow) -> list[bytes]:
        """The part's plaintext as chunks of up to 1 MiB, after all of it was verified.

        Raises:
            NotFound: OBJECT_MISSING when the storage has no such object.
            DataLoss: PART_DAMAGED, KEY_WRONG.
            FailedPrecondition: KEY_UNKNOWN.
        """
        identity = PartIdentity(row.artifact_id, kind, row.number)
        expected = Expected(row.name, row.stored_length, row.length, row.sha256)
        return self.open(identity, expected, Wrapped(row.key_id, row.wrapped_key))

    def open(self, identity: PartIdentity, expected: Expected, wrapped: Wrapped) -> list[bytes]:
        """The same of a part that is known from elsewhere than its row.

        Raises: as `get`.
        """
        data_key = self._keys.unwrap(wrapped, identity.context())
        digest, chunks = hashlib.sha256(), []
        with self.buffers.borrowed() as buffer, memoryview(buffer) as room:
            # The buffer has more room than any part takes, so that a longer object is seen to be one.
            found = self.storage.get_into(expected.name, room)
            if found != expected.stored_length:
                raise damaged(identity, f"expected {expected.stored_length} stored bytes, found {found}")
            with room[:found] as sealed:
                for chunk in open_chunks(identity, data_key, sealed):
                    digest.update(chunk)
                    chunks.append(chunk)
        if sum(map(len, chunks)) != expected.length or digest.digest() != expected.sha256:
            raise damaged(identity, "its plaintext is not what is known of the part")
        return chunks


def new_name() -> str:
    """A fresh object name, 128 random bits."""
    text = secrets.token_hex(16)
    return f"{PREFIX}{text[:2]}/{text}"


def damaged(identity: PartIdentity, problem: str) -> DataLoss:
    return DataLoss(
        f"part {identity.number} of artifact {identity.artifact_id}: {problem}",
        reason="PART_DAMAGED",
        metadata={"artifact_id": str(identity.artifact_id), "part": str(identity.number)},
    )
