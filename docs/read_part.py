"""Read one sealed part with nothing of DataOps: proof that `archive-format.md` says all there is to know.

    python read_part.py OBJECT --kek BASE64 --wrapped HEX [--sha256 HEX] > plaintext

OBJECT is the stored file; the key-encryption key is the key ring's; the wrapped data key and the SHA-256 stand in the
part's row (`dataops.artifact_parts`: wrapped_key, sha256). Needs only the `cryptography` package.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import sys
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CHUNK = 1_048_576 + 16


def read_part(stored: bytes, kek: bytes, wrapped: bytes) -> tuple[dict[str, object], bytes]:
    """The header's fields and the plaintext. Raises ValueError or cryptography's InvalidTag when anything is wrong."""
    bound, commitment, chunks = stored[:80], stored[80:112], stored[112:]
    if bound[0:8] != b"\x89DOPT\r\n\x1a":
        raise ValueError("no sealed part: wrong magic")
    if bound[8:12] != b"\x00\x01\x00\x00":
        raise ValueError(f"expected format version 1, found {int.from_bytes(bound[8:10], 'big')}")
    number, artifact, kind = bound[12:16], bound[16:32], bound[32:48]

    data_key = AESGCM(kek).decrypt(wrapped[:12], wrapped[12:], b"dataops wrap 1" + artifact + kind + number)
    expected = HKDF(SHA256(), length=32, salt=bound, info=b"dataops part commitment 1").derive(data_key)
    if not hmac.compare_digest(commitment, expected):
        raise ValueError("the header does not commit to this key")

    plaintext, count = b"", -(-len(chunks) // CHUNK)
    for i in range(count):
        last = b"\x01" if i == count - 1 else b"\x00"
        associated = bound + i.to_bytes(4, "big") + last
        plaintext += AESGCM(data_key).decrypt(i.to_bytes(12, "big"), chunks[i * CHUNK : (i + 1) * CHUNK], associated)
    fields: dict[str, object] = {
        "artifact": str(UUID(bytes=artifact)),
        "kind": kind.rstrip(b"\0").decode("ascii"),
        "part": int.from_bytes(number, "big"),
        "first_key_id": bound[48:80].rstrip(b"\0").decode("ascii"),
    }
    return fields, plaintext


def main() -> None:
    """Read the object named on the command line and write its plaintext to standard output."""
    parser = argparse.ArgumentParser(description="read one sealed part of a DataOps artifact")
    parser.add_argument("object", type=Path, help="the stored file")
    parser.add_argument("--kek", required=True, help="key-encryption key, base64")
    parser.add_argument("--wrapped", required=True, help="wrapped data key, hex")
    parser.add_argument("--sha256", help="expected SHA-256 of the plaintext, hex")
    arguments = parser.parse_args()
    fields, plaintext = read_part(
        arguments.object.read_bytes(), base64.b64decode(arguments.kek), bytes.fromhex(arguments.wrapped)
    )
    print(fields, file=sys.stderr)
    if arguments.sha256 and hashlib.sha256(plaintext).hexdigest() != arguments.sha256:
        sys.exit("the plaintext has another SHA-256")
    sys.stdout.buffer.write(plaintext)


if __name__ == "__main__":
    main()
