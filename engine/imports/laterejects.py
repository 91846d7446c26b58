"""The reject file again, where the table has refused rows only at apply: what planning refused and what apply did."""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from engine.artifacts import ArtifactKind
from engine.db.models import ImportRow, UploadRow
from engine.imports.model import FieldMapping, ImportOptions, ImportType, Severity
from engine.imports.planfile import Plan
from engine.imports.rejects import Refusal, write_rejects
from engine.imports.sources import open_sources
from engine.imports.targets import make_target

if TYPE_CHECKING:
    from engine.jobs.run import JobRun


def late_rejects(run: JobRun, row: ImportRow, facts: dict[str, Any]) -> uuid.UUID | None:
    """A new reject file; None where planning's is complete. A bundle has none."""
    if not any(own["late_failed"] for own in facts["entities"]) or not row.entity_type:
        return None
    resources, store = run.resources, run.resources.artifacts
    assert row.plan_artifact_id is not None
    assert row.plan_digest is not None
    plan = Plan.open(store.reader(row.plan_artifact_id), row.plan_digest)
    options = ImportOptions.from_record(plan.head["options"])
    late = Plan.read(store.reader(uuid.UUID(facts["undo_artifact_id"])))
    with resources.db.transaction() as session:
        upload = session.get(UploadRow, row.upload_id)
        artifact_id = store.create(session, ArtifactKind.REJECTS, "job", run.job.id)
    assert upload is not None
    (source,) = open_sources(resources, row, upload, options, check=run.check)
    catalog = resources.catalogs.load()
    mapping = tuple(FieldMapping.from_record(m) for m in row.options.get("mapping", []))
    target, _ = make_target(
        0, catalog.entity(source.entity), catalog, options=options, mode=ImportType(row.import_type), mapping=mapping,
        open_file=source.open_file, may_set_secrets=lambda: True,
    )  # fmt: skip
    refusals = _merged(_failed(plan, "0.ERRORS"), _failed(late, "0.LATE"))
    with store.writer(artifact_id) as sink:
        write_rejects(target.reader(), target.columns, refusals, sink, options)
        sink.close()
    return artifact_id


def _failed(plan: Plan, stream: str) -> Iterator[Refusal]:
    for _, line in plan.numbered(stream, 0):
        row, severity, field, code, message, _ = (cell or "" for cell in line)
        if severity == Severity.FAILED:
            yield Refusal(int(row), code, field, message)


def _merged(*sources: Iterator[Refusal]) -> Iterator[Refusal]:
    """One refusal for each record: the first fault's code and field, every fault's message."""
    for row, faults in groupby(heapq.merge(*sources, key=lambda r: r.row), key=lambda r: r.row):
        found = list(faults)
        message = "; ".join(f.message for f in found)[:1000]
        yield Refusal(row, found[0].code, found[0].field, message)
