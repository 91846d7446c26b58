"""One sealed part: header, key commitment, chunks. The bytes and their reasons stand in `docs/archive-format.md`."""

from __future__ import annotations

import hmac
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from engine.crypto.keyring import KEY_BYTES, NONCE_BYTES
from engine.errors import DataLoss, InternalError

MAGIC = b"\x89DOPT\r\n\x1a"
VERSION = 1
HEADER_BYTES = 112
BOUND_BYTES = 80
"""The header up to the commitment: what the commitment and every chunk's associated data cover."""
CHUNK_BYTES = 1 << 20
TAG_BYTES = 16
SEALED_CHUNK_BYTES = CHUNK_BYTES + TAG_BYTES
MAX_PART_BYTES = 8 << 20
COMMIT_INFO = b"dataops part commitment 1"

_BOUND = struct.Struct(">8sHHI16s16s32s")


@dataclass(frozen=True, slots=True)
class PartIdentity:
    """Which part this is; bound into the wrapped key, the commitment and every chunk."""

    artifact_id: UUID
    kind: str
    number: int

    def context(self) -> bytes:
        """What the wrapped data key is bound to."""
        return self.artifact_id.bytes + _padded(self.kind, 16) + self.number.to_bytes(4, "big")

    def bound_header(self, key_id: str) -> bytes:
        """Header bytes 0 to 79."""
        return _BOUND.pack(
            MAGIC, VERSION, 0, self.number, self.artifact_id.bytes, _padded(self.kind, 16), _padded(key_id, 32)
        )


def new_data_key() -> bytes:
    """A key for one part, never to be used for a second."""
    return os.urandom(KEY_BYTES)


def sealed_length(length: int) -> int:
    """The stored length of a part of `length` plaintext bytes."""
    return HEADER_BYTES + length + TAG_BYTES * -(-length // CHUNK_BYTES)


def seal(identity: PartIdentity, key_id: str, data_key: bytes, plaintext: memoryview, out: memoryview) -> int:
    """Seal 1 byte to 8 MiB of `plaintext` into `out` and return how many bytes of it were written.

    `out` must have room for `sealed_length(len(plaintext))` and must not overlap `plaintext`.
    """
    if not 0 < len(plaintext) <= MAX_PART_BYTES:
        raise ValueError(f"a part has 1 to {MAX_PART_BYTES} bytes, found {len(plaintext)}")
    bound = identity.bound_header(key_id)
    out[:BOUND_BYTES] = bound
    out[BOUND_BYTES:HEADER_BYTES] = _commitment(data_key, bound)
    cipher = AESGCM(data_key)
    position, last = HEADER_BYTES, (len(plaintext) - 1) // CHUNK_BYTES
    for number in range(last + 1):
        chunk = plaintext[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        end = position + len(chunk) + TAG_BYTES
        cipher.encrypt_into(_nonce(number), chunk, _associated(bound, number, number == last), out[position:end])
        position = end
    return position


def open_chunks(identity: PartIdentity, data_key: bytes, sealed: bytes | memoryview) -> Iterator[bytes]:
    """The plaintext of a sealed part, in authenticated chunks of up to 1 MiB.

    Raises:
        DataLoss: PART_DAMAGED when the header is another part's, the key another key, or a chunk is not what was
            sealed in its place. Raised before the first chunk for the header and key.
    """
    cipher = AESGCM(data_key)
    for number, count, chunk, associated in _sealed_chunks(identity, data_key, memoryview(sealed)):
        try:
            yield cipher.decrypt(_nonce(number), chunk, associated)
        except InvalidTag:
            raise _chunk_damaged(identity, number, count) from None


def check_sealed(identity: PartIdentity, data_key: bytes, plaintext: memoryview, sealed: memoryview) -> None:
    """Open what was just sealed and compare it: nothing is stored that cannot be read again (restic does the same).

    Raises:
        InternalError: SELF_CHECK_FAILED; this machine's CPU, memory or cipher library is defective.
    """
    cipher, position = AESGCM(data_key), 0
    # A bytearray compares with any buffer by memcmp; two memoryviews item by item, 17 ms for a part instead of 1.
    opened = bytearray(min(CHUNK_BYTES, len(plaintext)))
    try:
        for number, _count, chunk, associated in _sealed_chunks(identity, data_key, sealed):
            length = len(chunk) - TAG_BYTES
            if length != len(opened):  # the last one
                opened = bytearray(length)
            cipher.decrypt_into(_nonce(number), chunk, associated, opened)
            if opened != plaintext[position : position + length]:
                raise _self_check_failed(identity)
            position += length
    except (DataLoss, InvalidTag):
        raise _self_check_failed(identity) from None
    if position != len(plaintext):
        raise _self_check_failed(identity)


def _sealed_chunks(
    identity: PartIdentity, data_key: bytes, view: memoryview
) -> Iterator[tuple[int, int, memoryview, bytes]]:
    """After the header was checked: each chunk's number, their count, the sealed chunk and its associated data."""
    bound = _checked_header(identity, data_key, view)
    count = -(-(len(view) - HEADER_BYTES) // SEALED_CHUNK_BYTES)
    for number in range(count):
        start = HEADER_BYTES + number * SEALED_CHUNK_BYTES
        chunk = view[start : start + SEALED_CHUNK_BYTES]
        if len(chunk) <= TAG_BYTES:
            raise _chunk_damaged(identity, number, count)
        yield number, count, chunk, _associated(bound, number, number == count - 1)


def _chunk_damaged(identity: PartIdentity, number: int, count: int) -> DataLoss:
    return _damaged(identity, f"chunk {number} of {count} does not open")


def _checked_header(identity: PartIdentity, data_key: bytes, view: memoryview) -> bytes:
    if len(view) <= HEADER_BYTES + TAG_BYTES or len(view) > sealed_length(MAX_PART_BYTES):
        raise _damaged(identity, f"found {len(view)} bytes, which no part has")
    bound = bytes(view[:BOUND_BYTES])
    magic, version, zero, number, artifact_id, kind, _key_id = _BOUND.unpack(bound)
    if magic != MAGIC:
        raise _damaged(identity, "the object is no sealed part")
    if version != VERSION or zero != 0:
        raise _damaged(identity, f"expected format version {VERSION}, found {version}")
    found = (number, artifact_id, kind)
    if found != (identity.number, identity.artifact_id.bytes, _padded(identity.kind, 16)):
        raise _damaged(identity, "the object is another part")
    if not hmac.compare_digest(bytes(view[BOUND_BYTES:HEADER_BYTES]), _commitment(data_key, bound)):
        raise _damaged(identity, "the header does not commit to the part's key")
    return bound


def _commitment(data_key: bytes, bound: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=bound, info=COMMIT_INFO).derive(data_key)


def _nonce(number: int) -> bytes:
    return number.to_bytes(NONCE_BYTES, "big")


def _associated(bound: bytes, number: int, last: bool) -> bytes:
    return bound + number.to_bytes(4, "big") + (b"\x01" if last else b"\x00")


def _padded(text: str, length: int) -> bytes:
    data = text.encode("ascii")
    if not 0 < len(data) <= length:
        raise ValueError(f"expected 1 to {length} ASCII characters, found {len(data)}")
    return data.ljust(length, b"\0")


def _damaged(identity: PartIdentity, problem: str) -> DataLoss:
    return DataLoss(
        f"part {identity.number} of artifact {identity.artifact_id}: {problem}",
        reason="PART_DAMAGED",
        metadata={"artifact_id": str(identity.artifact_id), "part": str(identity.number)},
    )


def _self_check_failed(identity: PartIdentity) -> InternalError:
    return InternalError(
        f"part {identity.number} of artifact {identity.artifact_id} did not open as it was sealed on this machine",
        reason="SELF_CHECK_FAILED",
    )
