"""Shows backups, and how one differs from the live rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from dataops_client.cli import output as out
from dataops_client.cli.plain import enum_word
from dataops_client.cli.plan import minute
from dataops_client.cli.rows import fields_text, key_text

if TYPE_CHECKING:
    from dataops.v1 import backups_pb2

_NAMED = 3
"""Entities of a backup that its line in the list names."""


def show_backups(found: Iterable[backups_pb2.Backup]) -> None:
    """Backups, one a line."""
    out.table(
        ("backup", "name", "type", "trigger", "status", "entities", "rows", "size", "proven", "held", "created"),
        (
            (
                b.backup_id,
                b.name,
                enum_word(b, "backup_type"),
                enum_word(b, "trigger_type"),
                enum_word(b, "status"),
                _named([e.entity for e in b.entities]),
                sum(e.rows for e in b.entities),
                out.size(b.file_size_bytes),
                _proven(b),
                "held" if b.held else "",
                b.created_at.ToJsonString(),
            )
            for b in found
        ),
    )


def show_backup(backup: backups_pb2.Backup) -> None:
    """One backup, what it holds and what is not covered."""
    out.facts(
        [
            ("backup", backup.backup_id),
            ("name", backup.name),
            ("status", enum_word(backup, "status")),
            ("type", enum_word(backup, "backup_type")),
            ("full because", backup.full_because),
            ("trigger", enum_word(backup, "trigger_type")),
            ("rows", f"{sum(e.rows for e in backup.entities):,}"),
            ("size", out.size(backup.file_size_bytes)),
            ("total size", out.size(backup.total_size_bytes) if backup.parent_backup_id else ""),
            ("frees", out.size(backup.freeable_size_bytes)),
            ("parent", backup.parent_backup_id),
            ("chain", backup.chain_backup_id if backup.parent_backup_id else ""),
            ("checksum", backup.checksum),
            ("snapshot", backup.snapshot_at.ToJsonString() if backup.HasField("snapshot_at") else ""),
            ("restored", minute(backup.restored_at)),
            ("expires", minute(backup.expires_at)),
            ("held", "until it is released" if backup.held else ""),
            *(("proof", _proof(v)) for v in backup.verifications),
            ("error", f"{backup.error.reason}: {backup.error.message}" if backup.HasField("error") else ""),
            ("job", backup.job_id),
            ("reason", backup.context.reason),
            *((notice.code, notice.message) for notice in backup.not_covered),
        ]
    )
    print()
    out.table(("entity", "rows", "size"), ((e.entity, f"{e.rows:,}", out.size(e.size_bytes)) for e in backup.entities))


def show_differences(
    backup_id: str,
    job_id: str,
    counts: Sequence[backups_pb2.EntityDifference],
    found: Iterable[backups_pb2.BackupDifference],
) -> None:
    """How many rows differ, then some of them: live -> in the backup."""
    out.facts([("backup", backup_id), ("comparison", job_id)])
    print()
    out.table(
        ("entity", "only in the backup", "only live", "different", "equal"),
        ((c.entity, f"{c.only_in_backup:,}", f"{c.only_live:,}", f"{c.different:,}", f"{c.equal:,}") for c in counts),
    )
    rows = iter(found)
    first = next(rows, None)
    if first is None:
        return
    print("\nwhat going back would do, live -> in the backup:")
    out.table(
        ("kind", "entity", "key", "fields"),
        (
            (enum_word(d, "kind"), d.entity, key_text(d.key, cut=True), fields_text(d, cut=True))
            for d in chain([first], rows)
        ),
    )


def tell_cut(counts: Sequence[backups_pb2.EntityDifference], kind: str, limit: int) -> None:
    """Say that there are more rows of the kind, of any if it is empty, than the limit lets be shown; 0 shows all."""
    by_kind = {
        "insert": sum(c.only_in_backup for c in counts),
        "delete": sum(c.only_live for c in counts),
        "update": sum(c.different for c in counts),
    }
    total = by_kind[kind] if kind else sum(by_kind.values())
    if limit and total > limit:
        print(f"\n{limit:,} of {total:,} shown; --limit 0 shows all")


def _named(entities: Sequence[str]) -> str:
    more = len(entities) - _NAMED
    return ",".join(entities[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _proven(backup: backups_pb2.Backup) -> str:
    """The highest level that was proven; a proof that failed since is said instead."""
    newest = max(backup.verifications, key=lambda v: v.verified_at.ToNanoseconds(), default=None)
    if newest is not None and not newest.good:
        return "NOT GOOD"
    good = [v for v in backup.verifications if v.good]
    return enum_word(max(good, key=lambda v: v.level), "level") if good else ""


def _proof(verification: backups_pb2.BackupVerification) -> str:
    when = f"{enum_word(verification, 'level')} at {minute(verification.verified_at)}"
    if verification.good:
        return f"{when}: good"
    return f"{when}: NOT GOOD, {verification.error.reason}: {verification.error.message}"
