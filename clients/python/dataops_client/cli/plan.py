"""Shows a plan to whoever decides about it: what happens to how many rows, what is locked, and some of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from dataops_client.cli import output as out
from dataops_client.cli.plain import enum_word
from dataops_client.cli.rows import fields_text, key_text

if TYPE_CHECKING:
    from dataops.v1 import common_pb2, imports_pb2
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    from dataops_client.client import DataOps

SAMPLE = 10
"""Changes and refused rows that are shown beside a plan; `dataops imports changes` and `errors` have all."""

ALARM_ROWS = 20
"""A field that changes in every one of more updated rows than this is probably filled by the wrong column."""

_COUNTS = ("inserts", "updates", "unchanged", "deletes", "skips", "failed")

_LOCKS = {
    "ROWS": "others read and write on; whoever writes one of these rows waits",
    "SHARE_ROW_EXCLUSIVE": "others can read, writers wait",
    "ACCESS_EXCLUSIVE": "readers and writers wait",
}


def show_decision(client: DataOps, planned: imports_pb2.Import) -> None:
    """The plan, a sample of its changes and of the rows not taken."""
    show_plan(planned)
    shown = list(_sample(client, planned))
    if shown:
        print("\nsome of the changes:")
        show_changes(shown, cut=True)
    counts = planned.plan.counts
    if counts.failed or counts.skips:
        print(f"\nrows not taken: {_not_taken(counts)}; the first of them:")
        out.show_row_errors(_errors(client, planned))


def _not_taken(counts: imports_pb2.ChangeCounts) -> str:
    """Bad rows and good ones that the mode leaves, as the table above counts them."""
    kinds = ((counts.failed, "failed"), (counts.skips, "skipped"))
    return ", ".join(f"{count:,} {word}" for count, word in kinds if count)


def _errors(client: DataOps, planned: imports_pb2.Import) -> Iterator[imports_pb2.ImportRowError]:
    """Some of the rows not taken, the bad ones first."""
    from dataops.v1 import imports_pb2

    left = SAMPLE
    for severity in (imports_pb2.ROW_ERROR_SEVERITY_FAILED, imports_pb2.ROW_ERROR_SEVERITY_SKIPPED):
        if not left:
            return
        for error in islice(client.import_errors(planned.import_id, severity=severity, page_size=left), left):
            left -= 1
            yield error


def show_plan(planned: imports_pb2.Import) -> None:
    """What an import will do."""
    plan = planned.plan
    out.facts(
        [
            ("import", planned.import_id),
            ("file", planned.name),
            ("mode", enum_word(planned, "import_type")),
            ("status", enum_word(planned, "status")),
        ]
    )
    print()
    _show_counts(planned)
    for entity in plan.entities:
        _show_updated_fields(entity)
    _show_foreign_keys(plan)
    print()
    out.facts(
        [
            *(("locks", line) for line in _lock_lines(plan)),
            ("assigned", _assigned(plan)),
            ("deletes", _confirmation(plan)),
            ("approval", _approval(planned)),
            ("expires", minute(plan.expires_at)),
            *(("notice", notice_line(notice)) for notice in plan.notices),
        ]
    )


def show_changes(changes: Iterable[imports_pb2.ImportChange], *, cut: bool = False) -> None:
    """Changes, one a line: old -> new. `cut` shortens long values and long lists of fields."""
    out.table(
        ("row", "kind", "entity", "key", "change"),
        (
            (
                change.row or "",
                enum_word(change, "kind"),
                change.entity,
                key_text(change.key, cut=cut),
                fields_text(change, cut=cut),
            )
            for change in changes
        ),
    )


def _show_counts(planned: imports_pb2.Import) -> None:
    plan = planned.plan
    cascaded = any(entity.cascaded for entity in plan.entities)
    columns = ["entity", *_COUNTS, *(["by foreign keys"] if cascaded else []), "rows before -> after"]
    rows = []
    for entity in plan.entities:
        counts = [f"{getattr(entity.counts, name):,}" for name in _COUNTS]
        more = [f"{entity.cascaded:,}"] if cascaded else []
        rows.append([entity.entity, *counts, *more, f"{entity.rows_before:,} -> {entity.rows_after:,}"])
    if len(plan.entities) != 1:
        counts = [f"{getattr(plan.counts, name):,}" for name in _COUNTS]
        more = [f"{sum(entity.cascaded for entity in plan.entities):,}"] if cascaded else []
        rows.append(["all", *counts, *more, ""])
    out.table(columns, rows)


def _show_updated_fields(entity: imports_pb2.EntityPlan) -> None:
    """How often each field gets another value, and an alarm where that is every time."""
    if not entity.updated_fields:
        return
    updates = entity.counts.updates
    by = f", found by {', '.join(entity.key_fields)}" if entity.key_fields else ""
    print(f"\nupdated fields of {entity.entity} ({updates:,} rows{by}):")
    out.facts((f"  {f.field}", f"{f.rows:,}") for f in entity.updated_fields)
    for field in entity.updated_fields:
        if field.rows == updates and updates > ALARM_ROWS:
            print(f"! {field.field} changes in every one of the {updates:,} updated rows: is its column the right one?")


def _show_foreign_keys(plan: imports_pb2.PlanSummary) -> None:
    if not plan.foreign_key_effects:
        return
    print("\nforeign keys by themselves:")
    out.facts(
        (f"  {effect.entity}", f"{effect.rows:,} rows, {effect.action} ({effect.constraint})")
        for effect in plan.foreign_key_effects
    )


def _lock_lines(plan: imports_pb2.PlanSummary) -> Iterator[str]:
    """Who waits, and for how long; entities with the same lock in one line."""
    groups: dict[str, list[str]] = {}
    for entity in plan.entities:
        groups.setdefault(enum_word(entity, "lock_mode"), []).append(entity.entity)
    if len(groups) < 2:
        groups = {enum_word(plan, "lock_mode"): []}
    for mode, entities in groups.items():
        if mode in _LOCKS:
            words = f"{_LOCKS[mode]} {_duration(plan)}".strip()
            yield f"{', '.join(entities)}: {words}" if entities else words


def _duration(plan: imports_pb2.PlanSummary) -> str:
    return duration_words(plan.lock_duration) if plan.HasField("lock_duration") else ""


def duration_words(duration: Duration) -> str:
    """A time as people say it."""
    seconds = duration.seconds + duration.nanos / 1e9
    if seconds < 1:
        return "less than 1 s"
    if seconds < 120:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 7200 else f"about {seconds / 3600:.1f} h"


def _assigned(plan: imports_pb2.PlanSummary) -> str:
    named = ", ".join(plan.server_assigned_fields)
    return f"{named} by the database when it is applied" if named else ""


def waits_for_another(planned: imports_pb2.Import) -> bool:
    """Whether another person must approve the plan, and nobody has."""
    return planned.plan.approval_needed and not planned.approved_by_admin_id


def _approval(planned: imports_pb2.Import) -> str:
    if waits_for_another(planned):
        return "another person must approve it first"
    return f"given by {planned.approved_by_admin_id}" if planned.approved_by_admin_id else ""


def _confirmation(plan: imports_pb2.PlanSummary) -> str:
    if not plan.deletes_need_confirmation:
        return ""
    return f"their number must be repeated: {plan.counts.deletes}"


def minute(moment: Timestamp) -> str:
    """A time as people write it; empty where there is none."""
    return moment.ToDatetime().strftime("%Y-%m-%d %H:%M UTC") if moment.seconds else ""


def notice_line(notice: common_pb2.Notice) -> str:
    """Code and sentence, with a mark where it should be read before going on."""
    mark = "! " if enum_word(notice, "severity") == "WARNING" else ""
    return f"{mark}{notice.code}: {notice.message}"


def _sample(client: DataOps, planned: imports_pb2.Import) -> Iterator[imports_pb2.ImportChange]:
    """A few changes of each kind there is, the dangerous kinds first."""
    from dataops.v1 import imports_pb2

    from dataops_client.errors import NotBuilt

    counts, cascaded = planned.plan.counts, sum(entity.cascaded for entity in planned.plan.entities)
    kinds = [
        (imports_pb2.CHANGE_KIND_DELETE, counts.deletes),
        (imports_pb2.CHANGE_KIND_CASCADE, cascaded),
        (imports_pb2.CHANGE_KIND_UPDATE, counts.updates),
        (imports_pb2.CHANGE_KIND_INSERT, counts.inserts),
    ]
    there = [(kind, count) for kind, count in kinds if count]
    left = SAMPLE
    try:
        for place, (kind, count) in enumerate(there):
            share = min(count, -(-left // (len(there) - place)))
            yield from islice(client.import_changes(planned.import_id, kind=kind, page_size=share), share)
            left -= share
    except NotBuilt:  # an older server: its plan has no rows to show
        return
