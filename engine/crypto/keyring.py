"""The key ring: key-encryption keys, and the wrapping of data keys under them."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from engine.errors import DataLoss, FailedPrecondition, InvalidRequest

if TYPE_CHECKING:
    from engine.config import Settings

KEY_BYTES = 32
NONCE_BYTES = 12
KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,32}")
WRAP_LABEL = b"dataops wrap 1"


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A data key under a key-encryption key: 12 bytes of nonce, 32 of sealed key, 16 of tag."""

    key_id: str
    data: bytes


class KeyRing:
    """Key-encryption keys by id. The active one wraps; every one unwraps. Safe to share between threads."""

    def __init__(self, keys: Mapping[str, bytes], active_id: str) -> None:
        """`keys` are 32 bytes each.

        Raises:
            InvalidRequest: KEYS_INVALID, never naming a key's bytes.
        """
        for key_id, key in keys.items():
            if not KEY_ID.fullmatch(key_id):
                raise _invalid(f"key id {key_id[:40]!r}: expected 1 to 32 of A-Z a-z 0-9 . _ -")
            if len(key) != KEY_BYTES or len(set(key)) == 1:
                raise _invalid(f"key {key_id}: expected 32 random bytes, found {len(key)} or all the same")
        if active_id not in keys:
            raise _invalid(f"active key {active_id!r}: not in the ring of {len(keys)} keys")
        self.active_id = active_id
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}

    @classmethod
    def parse(cls, text: str, active_id: str = "") -> KeyRing:
        """The ring in `text`: one `<key id> <base64 of 32 bytes>` a line, or between `;`; `#` starts a comment.

        Raises:
            InvalidRequest: KEYS_INVALID when a line has another form, an id stands twice or there is no key.
        """
        keys = parse_keys(text)
        return cls(keys, active_id or next(iter(keys)))

    @classmethod
    def from_settings(cls, settings: Settings) -> KeyRing:
        """The ring of `settings.key_file` or `settings.keys`.

        Raises:
            InvalidRequest: KEYS_MISSING when neither is set or the file cannot be read; KEYS_INVALID.
        """
        if settings.key_file is None:
            if not settings.keys:
                raise InvalidRequest("key ring: set key_file or keys", reason="KEYS_MISSING")
            return cls.parse(settings.keys, settings.active_key)
        return cls.from_file(settings.key_file, settings.active_key)

    @classmethod
    def from_file(cls, path: Path, active_id: str = "") -> KeyRing:
        """Raises:
        InvalidRequest: KEYS_MISSING when it cannot be read; KEYS_INVALID.
        """
        return cls.parse(read_key_file(path), active_id)

    @property
    def ids(self) -> frozenset[str]:
        """The ids of all its keys."""
        return frozenset(self._ciphers)

    def wrap(self, data_key: bytes, context: bytes) -> Wrapped:
        """`data_key` under the active key, bound to `context`: it unwraps with the same context only."""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[self.active_id].encrypt(nonce, data_key, WRAP_LABEL + context)
        return Wrapped(self.active_id, nonce + sealed)

    def unwrap(self, wrapped: Wrapped, context: bytes) -> bytes:
        """The data key again.

        Raises:
            FailedPrecondition: KEY_UNKNOWN when the ring lacks that key; adding it mends this.
            DataLoss: KEY_WRONG when the key of that id did not wrap this for this context.
        """
        cipher = self._ciphers.get(wrapped.key_id)
        if cipher is None:
            raise FailedPrecondition(
                f"key {wrapped.key_id!r} is not in the key ring",
                reason="KEY_UNKNOWN",
                metadata={"key_id": wrapped.key_id},
            )
        nonce, sealed = wrapped.data[:NONCE_BYTES], wrapped.data[NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, sealed, WRAP_LABEL + context)
        except (InvalidTag, ValueError):  # ValueError: a cut nonce
            raise DataLoss(
                f"data key cannot be unwrapped with key {wrapped.key_id!r}: another key, or damaged",
                reason="KEY_WRONG",
                metadata={"key_id": wrapped.key_id},
            ) from None


def read_key_file(path: Path) -> str:
    """Raises:
    InvalidRequest: KEYS_MISSING when it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not text"
        raise InvalidRequest(f"key ring: cannot read key_file: {problem}", reason="KEYS_MISSING") from None


def parse_keys(text: str) -> dict[str, bytes]:
    """The keys themselves, in their order: for who prints or writes a ring. Everybody else takes a `KeyRing`.

    Raises: as `KeyRing.parse`.
    """
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.replace(";", "\n").splitlines(), start=1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        if len(fields) != 2:
            raise _invalid(f"line {number}: expected `<key id> <base64>`, found {len(fields)} fields")
        if fields[0] in keys:
            raise _invalid(f"line {number}: key id {fields[0][:40]!r} stands twice")
        try:
            keys[fields[0]] = base64.b64decode(fields[1], validate=True)
        except binascii.Error:
            raise _invalid(f"line {number}: key {fields[0][:40]!r} is not base64") from None
    if not keys:
        raise _invalid("expected at least one key, found none")
    return keys


def _invalid(problem: str) -> InvalidRequest:
    return InvalidRequest(f"key ring: {problem}", reason="KEYS_INVALID")
