"""What is the service's own: control schema, key ring, artifact store, files. Asked as the user who runs the doctor."""

from __future__ import annotations

import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import redis
from sqlalchemy import text

from engine.admin.doctor.finding import OPERATIONS, Finding, Severity
from engine.config import Settings
from engine.crypto.keyring import KeyRing
from engine.db.database import Database
from engine.db.revision import require_revision
from engine.errors import DataOpsError
from engine.jobs.doorbell import RING_SECONDS
from engine.storage import storage_from

LEAST_BYTES = 256 << 20
"""A worker keeps a few parts of 8 MiB under way; with less than this any import may stop in the middle."""

COMFORTABLE_BYTES = 2 << 30
"""Plans, undo data and reports of a day; the largest table, whose export is kept beside it, comes on top."""

_PROBE = b"dataops doctor"


def check_control(settings: Settings) -> Iterator[Finding]:
    db = Database(settings.control_dsn, pool_size=1, application_name="dataops: doctor")
    try:
        revision = require_revision(db.engine)
        yield Finding("control_schema", Severity.OK, "dataops", f"revision {revision}", "this release works on it")
        yield from _lost_keys(db, settings)
    except DataOpsError as error:
        means = "no server or worker starts"
        yield Finding("control_schema", Severity.ERROR, "dataops", str(error), means, refused=OPERATIONS)
    finally:
        db.close()


def _lost_keys(db: Database, settings: Settings) -> Iterator[Finding]:
    """Keys that stored parts need and the ring lacks: what was sealed by them is lost with them."""
    try:
        ring = KeyRing.from_settings(settings)
    except DataOpsError:
        return  # `check_keys` says it
    with db.transaction() as session:
        query = "SELECT key_id, count(*) FROM dataops.artifact_parts GROUP BY key_id ORDER BY key_id"
        used = session.execute(text(query)).all()
        query = "SELECT key_id, count(*) FROM dataops.webhooks WHERE deleted_at IS NULL GROUP BY key_id ORDER BY key_id"
        signing = session.execute(text(query)).all()
    for key_id, parts in used:
        if key_id not in ring.ids:
            found = f"not in the key ring, and {parts:,} stored parts are sealed by it"
            means = "these artifacts cannot be opened (KEY_UNKNOWN); add the key to the ring again"
            yield Finding("keys", Severity.ERROR, f"key {key_id}", found, means)
    for key_id, webhooks in signing:
        if key_id not in ring.ids:
            found = f"not in the key ring, and the signing keys of {webhooks:,} webhooks are sealed by it"
            means = "nothing is delivered to them (KEY_UNKNOWN); add the key to the ring again, or make them anew"
            yield Finding("keys", Severity.ERROR, f"key {key_id}", found, means)


def check_keys(settings: Settings) -> Iterator[Finding]:
    subject = "DATAOPS_KEY_FILE" if settings.key_file else "DATAOPS_KEYS"
    try:
        ring = KeyRing.from_settings(settings)
    except DataOpsError as error:
        yield Finding("keys", Severity.ERROR, subject, str(error), "no server or worker starts", refused=OPERATIONS)
        return
    found = f"{len(ring.ids)} in the ring, {ring.active_id} seals"
    yield Finding("keys", Severity.OK, subject, found, "artifacts can be sealed and opened")


def check_files(settings: Settings) -> Iterator[Finding]:
    """Files that hold what nobody else may read."""
    for name, path in (("DATAOPS_KEY_FILE", settings.key_file), ("DATAOPS_TLS_KEY_FILE", settings.tls_key_file)):
        try:
            mode = stat.S_IMODE(path.stat().st_mode) if path is not None else 0o600
        except OSError as error:
            yield Finding("file_mode", Severity.ERROR, name, f"{error.strerror}", "no server or worker starts")
            continue
        if path is None:
            continue
        if mode & 0o077:
            severity = Severity.WARNING if mode & 0o007 else Severity.NOTICE
            who = "everybody" if mode & 0o007 else "the file's group"
            means = f"{who} on this host may get at the key; `chmod 600` takes it back"
            yield Finding("file_mode", severity, name, f"mode {mode:04o}", means)
        else:
            yield Finding("file_mode", Severity.OK, name, f"mode {mode:04o}", "its owner alone may read it")


def check_store(settings: Settings, largest: int) -> Iterator[Finding]:
    """Writes an object and removes it. A folder that is not there yet is left for the service to make."""
    if settings.artifacts.startswith("memory:"):
        means = "every process has its own and forgets it: for tests alone"
        yield Finding("store", Severity.ERROR, "DATAOPS_ARTIFACTS", "memory", means, refused=OPERATIONS)
        return
    folder = Path(settings.artifacts)
    if "://" not in settings.artifacts and not folder.is_dir():
        means = "the service makes it at its start, if it may; nothing was written to try"
        yield Finding("store", Severity.NOTICE, "DATAOPS_ARTIFACTS", "no such folder yet", means)
    else:
        yield _probed(settings.artifacts)
    if "://" not in settings.artifacts:
        yield from _room(folder, largest)


def _probed(artifacts: str) -> Finding:
    name = f"doctor-{secrets.token_hex(8)}"
    try:
        storage = storage_from(artifacts)
        try:
            storage.put(name, _PROBE)
            same = storage.get(name) == _PROBE
        finally:
            storage.delete(name)
    except DataOpsError as error:
        means = "nothing can be uploaded, exported or planned"
        return Finding("store", Severity.ERROR, "DATAOPS_ARTIFACTS", str(error), means, refused=OPERATIONS)
    if not same:
        means = "it does not give back what was written: nothing kept there can be relied on"
        return Finding("store", Severity.ERROR, "DATAOPS_ARTIFACTS", "other bytes", means, refused=OPERATIONS)
    return Finding("store", Severity.OK, "DATAOPS_ARTIFACTS", "an object was written, read and removed", "it works")


def _room(folder: Path, largest: int) -> Iterator[Finding]:
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(there).free
    found, wanted = f"{_size(free)} free", COMFORTABLE_BYTES + largest
    if free < LEAST_BYTES:
        means = f"uploads, exports and plans stop in the middle (STORAGE_FULL) with less than {_size(LEAST_BYTES)}"
        yield Finding("disk", Severity.ERROR, "DATAOPS_ARTIFACTS", found, means, refused=OPERATIONS)
    elif free < wanted:
        means = f"an export of the largest table may not fit (STORAGE_FULL): {_size(wanted)} are comfortable"
        yield Finding("disk", Severity.WARNING, "DATAOPS_ARTIFACTS", found, means)
    else:
        yield Finding("disk", Severity.OK, "DATAOPS_ARTIFACTS", found, f"{_size(wanted)} are comfortable")


def check_doorbell(settings: Settings) -> Iterator[Finding]:
    if not settings.redis_url:
        means = f"workers only look every {settings.look_seconds:g} s"
        yield Finding("doorbell", Severity.NOTICE, "DATAOPS_REDIS_URL", "none", means)
        return
    try:
        options = {"socket_connect_timeout": RING_SECONDS, "socket_timeout": RING_SECONDS}
        with redis.Redis.from_url(settings.redis_url, **options) as client:
            client.ping()
    except (redis.RedisError, OSError, ValueError) as error:
        means = f"no job is lost, but workers only look every {settings.look_seconds:g} s"
        found = f"no answer ({type(error).__name__})"
        yield Finding("doorbell", Severity.WARNING, "DATAOPS_REDIS_URL", found, means)
    else:
        yield Finding("doorbell", Severity.OK, "DATAOPS_REDIS_URL", "it answers", "workers are rung at once")


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"
