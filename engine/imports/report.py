"""Report: every record of the file accounted for, as numbers on the import and as a file to keep."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

from engine.artifacts import ArtifactKind
from engine.db.models import ImportRow
from engine.errors import InternalError

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

ACCOUNTED = ("inserted", "updated", "unchanged", "skipped", "failed")
"""What becomes of a record of the file."""

_SUMMED = ("total_records", *ACCOUNTED, "deleted", "cascaded", "changed_by_trigger")


def make_report(summary: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """`total_records` are the file's: inserted + updated + unchanged + skipped + failed, always. The others are rows
    of tables and stand apart.

    Raises:
        InternalError: REPORT_SUM when the numbers do not add up: then something was not accounted for.
    """
    planned = {e["name"]: e["counts"] for e in summary["entities"]}
    entities = [_of_entity(planned[own["entity"]], own) for own in facts["entities"]]
    changed = {c["entity"]: c["changed_by_trigger"] for c in facts.get("cascades", ())}
    entities += [
        _of_cascade(c, changed.get(c["name"], 0)) for c in summary["cascades"] if c["name"] not in planned
    ]  # fmt: skip
    report: dict[str, Any] = {name: sum(e[name] for e in entities) for name in _SUMMED}
    for name in ("rows_before", "rows_after"):
        values = [e[name] for e in entities if e["entity"] in planned]
        report[name] = None if None in values else sum(values)
    report["notices"] = _notices(summary, facts, report)
    report["entities"] = entities
    return report


def _of_entity(counts: dict[str, int], own: dict[str, Any]) -> dict[str, Any]:
    found = {
        "entity": own["entity"],
        "total_records": counts["total"],
        "inserted": own["inserted"],
        "updated": own["updated"],
        "unchanged": own["unchanged"],
        "skipped": counts["skip"] + own["late_skipped"],
        "failed": counts["failed"] + own["late_failed"],
        "deleted": own["deleted"],
        "cascaded": counts["cascade"],
        "changed_by_trigger": own["changed_by_trigger"],
        "rows_before": own["rows_before"],
        "rows_after": own["rows_after"],
    }
    accounted = sum(found[name] for name in ACCOUNTED)
    if accounted != found["total_records"]:
        raise InternalError(
            f"report: found {accounted} records accounted for, expected {found['total_records']}", reason="REPORT_SUM"
        )
    return found


def _of_cascade(cascade: dict[str, Any], changed: int) -> dict[str, Any]:
    # a row that two foreign keys reach is one row
    rows = cascade.get("rows", sum(n for _, _, n in cascade["actions"]))
    return {"entity": cascade["name"], **dict.fromkeys(_SUMMED, 0), "cascaded": rows,
            "changed_by_trigger": changed,
            "rows_before": None, "rows_after": None}  # fmt: skip


def _notices(summary: dict[str, Any], facts: dict[str, Any], report: dict[str, Any]) -> list[dict[str, Any]]:
    notices = list(summary["notices"])
    if report["changed_by_trigger"]:
        what = f"{report['changed_by_trigger']} rows are stored otherwise than planned"
        notices.append({"code": "CHANGED_BY_TRIGGER", "message": f"{what}: a trigger changed them"})
    if refused := sum(own["late_failed"] for own in facts["entities"]):
        notices.append({"code": "ROWS_REFUSED", "message": f"{refused} planned rows were refused and left out"})
    moved = sum(own["late_skipped"] + own["kept"] for own in facts["entities"])
    if moved:
        notices.append({"code": "ROWS_MOVED", "message": f"{moved} planned rows had moved and were left as they are"})
    return notices


def successful(report: dict[str, Any]) -> int:
    return int(report["inserted"] + report["updated"] + report["unchanged"])


def not_successful(report: dict[str, Any]) -> int:
    return int(report["skipped"] + report["failed"])


def write_report(
    run: JobRun, row: ImportRow, report: dict[str, Any], facts: dict[str, Any], now: datetime
) -> uuid.UUID:
    """The report as a file: one JSON object."""
    store = run.resources.artifacts
    sequences = {name: to for own in facts["entities"] for name, to in own["sequences"].items()}
    document = {
        "import_id": str(row.id),
        "entity_type": row.entity_type,
        "import_type": row.import_type,
        "plan_digest": (row.plan_digest or b"").hex(),
        "written_at": now.isoformat(),
        "report": report,
        "sequences": sequences,
    }
    with run.resources.db.transaction() as session:
        artifact_id = store.create(session, ArtifactKind.REPORT, "job", run.job.id)
    with store.writer(artifact_id) as sink:
        sink.write(json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n")
        sink.close()
    return artifact_id
