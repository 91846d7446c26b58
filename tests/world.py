"""What a test does with a whole engine, in a line each."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import psycopg

from engine.access import Caller, resolve_caller
from engine.access.caller import CallContext
from engine.access.roles import seed_roles
from engine.access.service import bootstrap, ensure_principal
from engine.db.models import ExportRow, GrantRow, ImportRow, JobRow
from engine.exports.model import ExportFormat, ExportOptions, ExportRequest, ExportType
from engine.exports.service import Exports
from engine.ids import new_id
from engine.imports.model import FieldMapping, ImportOptions, ImportRequest, ImportType, RowError
from engine.imports.service import Imports
from engine.jobs.registry import handlers
from engine.jobs.runner import Runner
from engine.paging import Paging
from engine.resources import Resources
from engine.uploads.service import Uploads

CONTEXT = CallContext(client="tests")


class World:
    """Resources, the services over them, and a caller who is super admin."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.imports = Imports(resources)
        self.exports = Exports(resources)
        self.uploads = Uploads(resources)
        self.caller = self.caller_with("super_admin", "root")

    def caller_with(self, role: str, subject: str) -> Caller:
        now = self.resources.clock()
        with self.resources.db.transaction() as session:
            seed_roles(session, now)
            if role == "super_admin":
                bootstrap(session, "tests", [subject], now)
            else:
                principal = ensure_principal(session, "tests", subject, "USER", now)
                session.add(GrantRow(id=new_id(), principal_id=principal.id, role=role, granted_at=now))
        with self.resources.db.transaction() as session:
            return resolve_caller(session, "tests", subject, "USER", subject, CONTEXT, now)

    # --- uploads

    def upload(self, data: bytes, name: str = "file.csv") -> uuid.UUID:
        row = self.uploads.start(self.caller, name, len(data), hashlib.sha256(data).digest(), *self.request())
        stream = self.uploads.open_stream(self.caller, row.id)
        for at in range(0, len(data), 1 << 20):
            stream.write(at, data[at : at + (1 << 20)], None)
        stream.finish()
        stream.close()
        return row.id

    @staticmethod
    def request() -> tuple[str, bytes]:
        """A fresh request id and a body's digest."""
        return str(uuid.uuid4()), hashlib.sha256(b"body").digest()

    # --- imports

    def create(self, entity: str, data: bytes | uuid.UUID, **options: Any) -> ImportRow:
        mapping = options.pop("mapping", ())
        if isinstance(mapping, dict):  # fields by column
            mapping = tuple(FieldMapping(f, c) for c, f in mapping.items())
        import_type = ImportType(options.pop("import_type", "ADDITIVE"))
        upload_id = self.upload(data) if isinstance(data, bytes) else data
        request = ImportRequest(upload_id, entity, import_type, ImportOptions.from_record(options), mapping)
        return self.imports.create(self.caller, request, *self.request())

    def plan(self, entity: str, data: bytes | uuid.UUID, **options: Any) -> ImportRow:
        """Create and plan: the import as it stands after."""
        row = self.create(entity, data, **options)
        self.work()
        return self.imports.get(self.caller, row.id)

    def apply(self, row: ImportRow, *, work: bool = True, deletes: int | None = None) -> ImportRow:
        """Apply the plan; `deletes` is their number, repeated."""
        self.imports.apply(self.caller, row.id, row.plan_digest or b"", *self.request(), deletes)
        if work:
            self.work()
        return self.imports.get(self.caller, row.id)

    def load(self, entity: str, data: bytes, **options: Any) -> ImportRow:
        """Plan and apply."""
        return self.apply(self.plan(entity, data, **options))

    def errors(self, row: ImportRow) -> list[RowError]:
        found: list[RowError] = []
        token = ""
        while True:
            page, token, _ = self.imports.errors(self.caller, row.id, Paging(1000, token, "t"))
            found += page
            if not token:
                return found

    def reason(self, row: ImportRow) -> str:
        return str((row.error or {}).get("reason"))

    # --- exports

    def begin_export(self, entity: str, **options: Any) -> ExportRow:
        request = ExportRequest(ExportType.ENTITY, (entity,), ExportFormat.CSV, ExportOptions(**options))
        return self.exports.create(self.caller, request, *self.request())

    def export(self, entity: str, **options: Any) -> tuple[ExportRow, bytes]:
        row = self.begin_export(entity, **options)
        self.work()
        row = self.exports.get(self.caller, row.id)
        assert row.status == "COMPLETED", row.error
        return row, self.read(self.exports.download(self.caller, row.id).artifact_id)

    # --- artifacts, jobs, the platform

    def read(self, artifact_id: uuid.UUID | None) -> bytes:
        assert artifact_id is not None
        return b"".join(self.resources.artifacts.reader(artifact_id).read())

    def work(self) -> int:
        """Run jobs until none is runnable; how many."""
        runner = Runner(self.resources, handlers(), "tests")
        done = 0
        while runner.run_next():
            done += 1
        return done

    def job(self, job_id: uuid.UUID | None) -> JobRow:
        with self.resources.db.transaction() as session:
            row = session.get(JobRow, job_id)
            assert row is not None
            return row

    def sql(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Run on the platform database, in a session of its own."""
        with psycopg.connect(self.resources.platform.dsn, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), arguments or None)
            return cursor.fetchall() if cursor.description else []
