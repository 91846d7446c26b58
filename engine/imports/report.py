"""Report: every record of the file accounted for, as numbers on the import and as a file to keep."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

from engine.artifacts import ArtifactKind
from engine.db.models import ImportRow
from engine.errors import InternalError
from engine.imports.backup import NOT_BACKED_UP

if TYPE_CHECKING:
    from engine.jobs.run import JobRun


def make_report(summary: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """`total_records` are the file's: inserted + updated + unchanged + skipped + failed, always. The others are rows
    of tables and stand apart.

    Raises:
        InternalError: REPORT_SUM when the numbers do not add up: then something was not accounted for.
    """
    counts = summary["counts"]
    notices = [n for n in summary["notices"] if facts["backup_id"] is None or n["code"] != NOT_BACKED_UP["code"]]
    if facts["changed_by_trigger"]:
        what = f"{facts['changed_by_trigger']} rows are stored otherwise than planned"
        notices.append({"code": "CHANGED_BY_TRIGGER", "message": f"{what}: a trigger changed them"})
    report = {
        "total_records": counts["total"],
        "inserted": facts["inserted"],
        "updated": 0,
        "unchanged": 0,
        "skipped": counts["skip"],
        "failed": counts["failed"],
        "deleted": 0,
        "cascaded": 0,
        "changed_by_trigger": facts["changed_by_trigger"],
        "rows_before": facts["rows_before"],
        "rows_after": facts["rows_after"],
        "notices": notices,
    }
    accounted = sum(report[name] for name in ("inserted", "updated", "unchanged", "skipped", "failed"))
    if accounted != report["total_records"]:
        raise InternalError(
            f"report: found {accounted} records accounted for, expected {report['total_records']}", reason="REPORT_SUM"
        )
    return report


def successful(report: dict[str, Any]) -> int:
    return int(report["inserted"] + report["updated"] + report["unchanged"])


def not_successful(report: dict[str, Any]) -> int:
    return int(report["skipped"] + report["failed"])


def write_report(
    run: JobRun, row: ImportRow, report: dict[str, Any], facts: dict[str, Any], now: datetime
) -> uuid.UUID:
    """The report as a file: one JSON object."""
    store = run.resources.artifacts
    document = {
        "import_id": str(row.id),
        "entity_type": row.entity_type,
        "import_type": row.import_type,
        "plan_digest": (row.plan_digest or b"").hex(),
        "written_at": now.isoformat(),
        "report": report,
        "sequences": facts.get("sequences", {}),
    }
    with run.resources.db.transaction() as session:
        artifact_id = store.create(session, ArtifactKind.REPORT, "job", run.job.id)
    with store.writer(artifact_id) as sink:
        sink.write(json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n")
        sink.close()
    return artifact_id
