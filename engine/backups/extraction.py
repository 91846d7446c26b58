"""ExtractBackupRows as the server asks for it: an upload that is promised, and the import that is planned from it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from engine.access import Caller, once
from engine.artifacts import ArtifactKind
from engine.audit import record_intent, record_outcome
from engine.backups.extract import Extraction, Key, encoded_keys, require_open_key
from engine.backups.manifest import not_held
from engine.backups.model import ExtractRequest
from engine.backups.opening import open_archive
from engine.catalog import Entity
from engine.db.models import BackupRow, ImportRow
from engine.errors import FailedPrecondition, InvalidRequest
from engine.ids import new_id
from engine.imports.model import ImportOptions, ImportType, effective_on_refused
from engine.imports.run import begin_plan
from engine.imports.states import ImportStatus
from engine.resources import Resources
from engine.uploads.service import Uploads

UNUSED_AFTER = timedelta(hours=1)
"""Of sealed keys whose call ended before it made anything of them."""


def extract(
    resources: Resources,
    caller: Caller,
    backup: BackupRow,
    request: ExtractRequest,
    request_id: str,
    body_sha256: bytes,
) -> ImportRow:
    """As `Backups.extract`; `backup` is one that the caller may see."""
    mode = _mode(request)
    caller.require("backups.extract", request.entity)
    caller.require("imports.create", request.entity, mode)
    if request.entity not in backup.entity_types:
        raise not_held(request.entity)
    keys = _keys(resources.catalogs.load().entity(request.entity), request, caller)
    open_archive(resources, backup)
    artifact_id = _sealed(resources, keys)
    now = resources.clock()
    with resources.db.transaction() as session:

        def make() -> uuid.UUID:
            return _create(session, resources, caller, request, mode, artifact_id, len(keys), now)

        import_id, fresh = once(session, caller, "ExtractBackupRows", request_id, body_sha256, make, now)
        if not fresh:
            resources.artifacts.discard(session, artifact_id)
        row = session.get_one(ImportRow, import_id)
    if fresh:
        resources.bell.ring()
    return row


def _mode(request: ExtractRequest) -> ImportType:
    """Not REPLACE: to get some rows back would delete all others."""
    fitting = (ImportType.ADDITIVE, ImportType.UPSERT)
    for mode in fitting:
        if request.import_type == mode:
            return mode
    raise InvalidRequest(
        f"import_type: found {request.import_type[:80]!r}, expected one of {', '.join(fitting)}",
        reason="OPTION_INVALID",
    )


def _keys(entity: Entity, request: ExtractRequest, caller: Caller) -> list[Key]:
    """The keys, each once, in the order of the entity's key.

    Raises:
        FailedPrecondition: KEY_NOT_USABLE; InvalidRequest: KEY_INVALID, without any value.
    """
    names = [entity.column(column).name for column in entity.key]
    if not names:
        raise FailedPrecondition(f"{entity.name}: found no key to tell rows by", reason="KEY_NOT_USABLE")
    secret = [field.name for field in entity.fields if field.secret]
    require_open_key(entity.name, names, secret, secrets=caller.may("secrets.set", entity.name))
    found: dict[Key, None] = {}
    for place, key in enumerate(request.keys):
        values = dict(key.values)
        if len(values) != len(key.values) or set(values) != set(names):
            raise InvalidRequest(
                f"keys[{place}]: expected the fields {', '.join(names)}, each once", reason="KEY_INVALID"
            )
        texts = [values[name] for name in names]
        if any(text is None or "\0" in text for text in texts):
            raise InvalidRequest(f"keys[{place}]: found NULL or a NUL byte, expected a value", reason="KEY_INVALID")
        found[tuple((name, str(text)) for name, text in zip(names, texts, strict=True))] = None
    if not found:
        raise InvalidRequest("keys: found none, expected one or more", reason="KEY_INVALID")
    return list(found)


def _sealed(resources: Resources, keys: Sequence[Key]) -> uuid.UUID:
    """The keys in an artifact: they are rows' values, and stand nowhere else."""
    store = resources.artifacts
    with resources.db.transaction() as session:
        artifact_id = store.create(session, ArtifactKind.UPLOAD, "upload", new_id(), resources.clock() + UNUSED_AFTER)
    with store.writer(artifact_id) as writer:
        writer.write(encoded_keys(keys))
        writer.close()
    return artifact_id


def _create(
    session: Session,
    resources: Resources,
    caller: Caller,
    request: ExtractRequest,
    mode: ImportType,
    artifact_id: uuid.UUID,
    keys: int,
    now: datetime,
) -> uuid.UUID:
    name = f"{request.entity[:100]} of backup {request.backup_id}.jsonl"
    upload = Uploads(resources).promise(session, caller, name, artifact_id, now)
    options = ImportOptions(format="JSON_LINES")
    row = ImportRow(
        id=new_id(),
        import_type=mode.value,
        entity_type=request.entity,
        entity_types=[request.entity],
        status=ImportStatus.PENDING.value,
        upload_id=upload.id,
        options=options.as_record()
        | {
            "on_refused": effective_on_refused(options, mode).value,
            "name": name,
            "mapping": [],
            "extract": Extraction(request.backup_id, request.entity).as_record(),
        },
        principal_id=caller.principal_id,
        context=caller.context.as_record(),
        created_at=now,
        updated_at=now,
    )
    session.add(row)
    session.flush()
    details = {"entity_types": [request.entity], "rows": keys, "import_id": str(row.id)}
    intent_id = record_intent(session, caller, "backups.extract", "backups", request.backup_id, details, now)
    record_outcome(session, intent_id, "COMPLETED", {}, now)
    row.plan_job_id = begin_plan(session, row, caller, now).id
    return row.id
