"""A process that uploads until it is killed, as `python -m` with DSN, folder, key, upload and principal."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

from engine.access.caller import Caller
from engine.artifacts import ArtifactStore
from engine.clock import utc_now
from engine.config import Settings
from engine.crypto.keyring import KeyRing
from engine.db.database import Database
from engine.storage.local import LocalStorage
from engine.uploads import Uploads
from tests.engine.uploads.conftest import Process


def content(size: int) -> bytes:
    """The same bytes in both processes, different in every KiB."""
    return b"".join(number.to_bytes(8, "big") * 128 for number in range(size // 1024))


def main() -> None:
    dsn, folder, key, upload_id, principal_id = sys.argv[1:]
    db = Database(dsn, pool_size=2)
    artifacts = ArtifactStore(db, LocalStorage(Path(folder)), KeyRing({"k1": bytes.fromhex(key)}, "k1"))
    settings = Settings(control_dsn=dsn, platform_dsn=dsn, artifacts=folder)
    caller = Caller(uuid.UUID(principal_id), "test", "ann", "USER", (), ("uploads.create",))
    stream = Uploads(Process(db, artifacts, settings, utc_now)).open_stream(caller, uuid.UUID(upload_id))
    data = content(24 << 20)  # three parts: however late it is killed, there is room for more than it wrote
    for at in range(0, len(data), 1 << 20):
        stream.write(at, data[at : at + (1 << 20)])
        print(stream.committed_size, flush=True)
    print("done", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
