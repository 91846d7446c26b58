"""The key of a webhook and what is signed with it; docs/webhooks.md has the receiver's side."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid

from engine.crypto.keyring import KeyRing, Wrapped

SIGNING_KEY_BYTES = 32
SIGNATURE_VERSION = "v1"
_LABEL = b"dataops webhook 1\0"


def make_key(ring: KeyRing, webhook_id: uuid.UUID) -> tuple[bytes, Wrapped]:
    """A new key, as its receiver gets it and as it is kept."""
    key = secrets.token_bytes(SIGNING_KEY_BYTES)
    return key, ring.wrap(key, key_context(webhook_id))


def key_context(webhook_id: uuid.UUID) -> bytes:
    """What a wrapped key is bound to: exchanged for another webhook's, it does not open."""
    return _LABEL + webhook_id.bytes


def signature(key: bytes, body: bytes, at: int) -> str:
    """The header of a message sent at this Unix time: the time is signed too, so that an old message cannot be sent
    again as a new one."""
    digest = hmac.new(key, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},{SIGNATURE_VERSION}={digest}"
