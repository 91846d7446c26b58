"""Shows restores: what one would do, what it did, and the next step as a command."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from dataops_client.cli import output as out
from dataops_client.cli.plain import enum_word
from dataops_client.cli.plan import duration_words, minute, notice_line
from dataops_client.cli.rows import key_text

if TYPE_CHECKING:
    from dataops.v1 import restores_pb2


def show_restores(found: Iterable[restores_pb2.Restore]) -> None:
    """Restores, one a line."""
    out.table(
        ("restore", "backup", "status", "entities", "lost", "changed", "created"),
        (
            (
                r.restore_id,
                r.backup_id,
                enum_word(r, "status"),
                ",".join(r.entity_types),
                *_losses(r),
                r.created_at.ToJsonString(),
            )
            for r in found
        ),
    )


def show_restore(found: restores_pb2.Restore) -> None:
    """One restore: its report once there is one, else its plan, and what can be done next."""
    out.facts(
        [
            ("restore", found.restore_id),
            ("backup", found.backup_id),
            ("status", enum_word(found, "status")),
            ("error", f"{found.error.reason}: {found.error.message}" if found.HasField("error") else ""),
            *(("", f"{v.subject}: {v.description}") for v in found.error.violations),
            ("reason", found.context.reason),
            ("backup before", found.pre_restore_backup_id),
        ]
    )
    if found.HasField("report"):
        _show_report(found.report)
    elif found.HasField("plan"):
        _show_plan(found.plan)
    for line in _next_steps(found):
        print(f"\n{line}")


def show_losses(found: Iterable[restores_pb2.RestoreLoss]) -> None:
    """Rows that will be gone, or have other values."""
    out.table(
        ("entity", "key", "what", "fields"),
        (
            (
                loss.entity,
                key_text(loss.key),
                "deleted" if loss.deleted else "changed",
                ", ".join(loss.changed_fields),
            )
            for loss in found
        ),
    )


def _show_plan(plan: restores_pb2.RestorePlan) -> None:
    print()
    rows = [(e.entity, e.rows_now, e.rows_in_backup, e.rows_lost, e.rows_changed) for e in plan.entities]
    if len(rows) != 1:
        rows.append(("all", *(sum(row[n] for row in rows) for n in range(1, 5))))  # type: ignore[misc, arg-type]
    out.table(
        ("entity", "rows now", "in the backup", "lost", "changed"),
        ((name, *(f"{count:,}" for count in counts)) for name, *counts in rows),
    )
    differences = [(e.entity, notice) for e in plan.entities for notice in e.schema_differences]
    if differences:
        print("\ndefinitions that differ from the backup's:")
        out.facts((f"  {entity}", notice_line(notice)) for entity, notice in differences)
    print()
    out.facts(
        [
            ("needs", f"{out.size(plan.disk_bytes)} of disk, {out.size(plan.wal_bytes)} of write-ahead log"),
            (
                "outage",
                f"everybody waits, {duration_words(plan.outage)}" if plan.HasField("outage") else "",
            ),
            *(("notice", notice_line(notice)) for notice in plan.notices),
            ("approval", "another person must approve it, too" if plan.approval_needed else ""),
            ("phrase", plan.confirmation_phrase),
            ("expires", minute(plan.expires_at)),
        ]
    )


def _show_report(report: restores_pb2.RestoreReport) -> None:
    print()
    out.table(
        ("entity", "rows before", "rows after", "lost", "changed"),
        (
            (e.entity, f"{e.rows_before:,}", f"{e.rows_after:,}", f"{e.rows_lost:,}", f"{e.rows_changed:,}")
            for e in report.entities
        ),
    )
    waited = duration_words(report.outage).removeprefix("about ") if report.HasField("outage") else ""
    if waited or report.notices:
        print()
    out.facts(
        [("outage", f"everybody waited {waited}" if waited else ""), *((n.code, n.message) for n in report.notices)]
    )


def _next_steps(found: restores_pb2.Restore) -> Iterator[str]:
    """What a person does next, as commands to copy."""
    status, restore_id = enum_word(found, "status"), found.restore_id
    waits = status in ("AWAITING_CONFIRMATION", "AWAITING_APPROVAL")
    if waits and any(_losses(found)):
        yield f"the rows that would be lost or changed: dataops restore losses {restore_id}"
    if status == "AWAITING_CONFIRMATION" and found.plan.confirmation_phrase:
        phrase = shlex.quote(found.plan.confirmation_phrase)
        yield f"nothing is touched; to restore: dataops restore confirm {restore_id} --phrase {phrase}"
    elif status == "AWAITING_CONFIRMATION":
        yield f"nothing is touched, and the phrase has expired: dataops restore plan {found.backup_id} makes a new plan"
    elif status == "AWAITING_APPROVAL":
        yield f"nothing is touched; another person approves it: dataops restore approve {restore_id}"
    elif status in ("PENDING", "VALIDATING", "PROCESSING"):
        yield f"dataops restore watch {restore_id} follows it"
    elif status == "COMPLETED" and found.pre_restore_backup_id:
        yield f"the way back: dataops restore plan {found.pre_restore_backup_id}"


def _losses(found: restores_pb2.Restore) -> tuple[int, int]:
    """Rows lost and changed: as done, else as planned."""
    entities = found.report.entities if found.HasField("report") else found.plan.entities
    return sum(e.rows_lost for e in entities), sum(e.rows_changed for e in entities)
