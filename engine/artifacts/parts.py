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


class PartVault:
    """Seals parts into a storage and opens them again. Safe to share between threads."""

    def __init__(self, storage: Storage, keys: KeyRing) -> None:
        self.storage = storage
        self.buffers = BufferPool()
        self._keys = keys

    def put(self, identity: PartIdentity, plaintext: memoryview, scratch: mmap.mmap) -> StoredPart:
        """Seal `plaintext`, open it again, and store it durably under a new name.

        `scratch`, of `buffers`, is overwritten; the caller uses it for one part at a time.

        Raises:
            InternalError: SELF_CHECK_FAILED, with nothing stored.
        """
        data_key = new_data_key()
        wrapped = self._keys.wrap(data_key, identity.context())
        with memoryview(scratch) as room:
            length = seal(identity, wrapped.key_id, data_key, plaintext, room)
            with room[:length] as sealed:
                unwrapped = self._keys.unwrap(wrapped, identity.context())
                check_sealed(identity, unwrapped, plaintext, sealed)
                name = new_name()
                self.storage.put(name, sealed)
        return StoredPart(name, length, wrapped)

    def get(self, kind: str, row: ArtifactPartRow) -> list[bytes]:
        """The part's plaintext as chunks of up to 1 MiB, after all of it was verified.

        Raises:
            NotFound: OBJECT_MISSING when the storage has no such object.
            DataLoss: PART_DAMAGED, KEY_WRONG.
            FailedPrecondition: KEY_UNKNOWN.
        """
        identity = PartIdentity(row.artifact_id, kind, row.number)
        data_key = self._keys.unwrap(Wrapped(row.key_id, row.wrapped_key), identity.context())
        # One byte more than expected, so that a longer object is seen to be one.
        sealed = self.storage.get(row.name, 0, row.stored_length + 1)
        if len(sealed) != row.stored_length:
            raise damaged(row, f"expected {row.stored_length} stored bytes, found {len(sealed)}")
        digest, chunks = hashlib.sha256(), []
        for chunk in open_chunks(identity, data_key, sealed):
            digest.update(chunk)
            chunks.append(chunk)
        if sum(map(len, chunks)) != row.length or digest.digest() != row.sha256:
            raise damaged(row, "its plaintext is not what the part's row says")
        return chunks


def new_name() -> str:
    """A fresh object name, 128 random bits."""
    text = secrets.token_hex(16)
    return f"{PREFIX}{text[:2]}/{text}"


def damaged(row: ArtifactPartRow, problem: str) -> DataLoss:
    return DataLoss(
        f"part {row.number} of artifact {row.artifact_id}: {problem}",
        reason="PART_DAMAGED",
        metadata={"artifact_id": str(row.artifact_id), "part": str(row.number)},
    )
