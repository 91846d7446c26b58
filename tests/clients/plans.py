"""Plans, and a backup, of which nearly everything must be said."""

from __future__ import annotations

from dataops.v1 import backups_pb2, common_pb2, imports_pb2, restores_pb2

from tests.clients.fake_world import BACKUP_ID, DIGEST, JOB_ID, RESTORE_ID, World


def plan_replace(world: World) -> imports_pb2.Import:
    """Plan a REPLACE of 5,000 users of which nearly everything must be said."""
    plan = world.imported.plan
    world.imported.import_type = imports_pb2.IMPORT_TYPE_REPLACE
    world.imported.name = "users.csv"
    counts = imports_pb2.ChangeCounts(inserts=1200, updates=40, unchanged=12, deletes=1234, skips=2, failed=1)
    plan.counts.CopyFrom(counts)
    users = plan.entities.add(
        entity="users",
        counts=counts,
        rows_before=5000,
        rows_after=4966,
        lock_mode=imports_pb2.LOCK_MODE_SHARE_ROW_EXCLUSIVE,
        key_fields=["email"],
    )
    users.updated_fields.add(field="name", rows=40)
    users.updated_fields.add(field="phone", rows=3)
    plan.entities.add(entity="tokens", cascaded=7, rows_before=90, rows_after=83, lock_mode=imports_pb2.LOCK_MODE_ROWS)
    plan.lock_mode = imports_pb2.LOCK_MODE_SHARE_ROW_EXCLUSIVE
    plan.lock_duration.FromMilliseconds(2900)
    plan.foreign_key_effects.add(entity="tokens", constraint="tokens_user_id_fkey", action="DELETE CASCADE", rows=7)
    plan.server_assigned_fields.extend(["users.id", "users.created_at"])
    plan.notices.add(code="CHECKED_AT_APPLY", message="one check", severity=common_pb2.NOTICE_SEVERITY_WARNING)
    plan.notices.add(code="LOOKED_UP", message="3 references")
    plan.expires_at.FromJsonString("2026-11-27T02:30:00Z")
    plan.deletes_need_confirmation = True
    kinds = [imports_pb2.ChangeKind.Value(f"CHANGE_KIND_{w}") for w in ("INSERT", "UPDATE", "DELETE", "CASCADE")]
    world.changes = [change(kind, row) for kind in kinds for row in range(20)]
    return world.imported


def change(kind: imports_pb2.ChangeKind.ValueType, row: int) -> imports_pb2.ImportChange:
    """One row of a plan."""
    made = imports_pb2.ImportChange(
        kind=kind, entity="tokens" if kind == imports_pb2.CHANGE_KIND_CASCADE else "users", row=row + 2
    )
    made.key.add(name="email", value=f"{row}@example.org")
    if kind == imports_pb2.CHANGE_KIND_INSERT:
        made.fields.add(name="name", new=f"n{row}")
        made.fields.add(name="phone")
        made.fields.add(name="password_hash", masked=True)
    elif kind == imports_pb2.CHANGE_KIND_UPDATE:
        made.fields.add(name="name", old="a\tb", new="NULL")
        made.fields.add(name="phone", new="")
    else:
        made.row = 0
        made.fields.add(name="name", old="gone")
    return made


PHRASE = "restore 2 entities and lose 5 rows QWERT"


def make_backup(world: World) -> backups_pb2.Backup:
    """A complete backup of two entities; the last of its proofs failed."""
    world.backup = backups_pb2.Backup(
        backup_id=BACKUP_ID,
        name="before the weekend",
        backup_type=backups_pb2.BACKUP_TYPE_FULL,
        trigger_type=backups_pb2.TRIGGER_TYPE_MANUAL,
        status=backups_pb2.BACKUP_STATUS_COMPLETED,
        file_size_bytes=4200,
        total_size_bytes=9200,
        freeable_size_bytes=4200,
        checksum="ab" * 32,
        held=True,
        job_id=JOB_ID,
        context=common_pb2.CallContext(reason="to be safe"),
    )
    world.backup.created_at.FromJsonString("2026-11-26T03:00:00Z")
    world.backup.snapshot_at.FromJsonString("2026-11-26T03:00:01Z")
    world.backup.expires_at.FromJsonString("2027-02-24T03:00:00Z")
    world.backup.entities.add(entity="users", rows=1500, size_bytes=4000)
    world.backup.entities.add(entity="tokens", rows=2, size_bytes=200)
    good = world.backup.verifications.add(level=backups_pb2.VERIFY_LEVEL_DECODED, good=True)
    good.verified_at.FromJsonString("2026-11-27T02:30:00Z")
    world.backup.not_covered.add(code="NOT_COVERED", message="public.seen: it is a view")
    return world.backup


def plan_restore(world: World) -> restores_pb2.Restore:
    """A restore to that backup which waits for its phrase."""
    world.restore = restores_pb2.Restore(
        restore_id=RESTORE_ID,
        backup_id=BACKUP_ID,
        entity_types=["users", "tokens"],
        status=restores_pb2.RESTORE_STATUS_AWAITING_CONFIRMATION,
        plan_job_id=JOB_ID,
    )
    plan = world.restore.plan
    plan.plan_digest, plan.confirmation_phrase = DIGEST, PHRASE
    plan.disk_bytes, plan.wal_bytes = 1_000_000, 2_100_000
    plan.outage.FromMilliseconds(2400)
    plan.expires_at.FromJsonString("2026-11-27T02:45:00Z")
    plan.approval_needed = True
    users = plan.entities.add(entity="users", rows_now=1503, rows_in_backup=1500, rows_lost=3, rows_changed=2)
    users.schema_differences.add(
        code="COLUMN_ADDED",
        message="users.nick: it came after the backup",
        severity=common_pb2.NOTICE_SEVERITY_WARNING,
    )
    plan.entities.add(entity="tokens", rows_now=2, rows_in_backup=2)
    plan.notices.add(
        code="EVERYBODY_WAITS", message="readers and writers wait", severity=common_pb2.NOTICE_SEVERITY_WARNING
    )
    world.losses = []
    for number in range(3):
        world.losses.append(restores_pb2.RestoreLoss(entity="users", deleted=True))
        world.losses[-1].key.add(name="id", value=str(number))
    world.losses.append(restores_pb2.RestoreLoss(entity="users", changed_fields=["name", "phone"]))
    world.losses[-1].key.add(name="id", value="9")
    return world.restore
