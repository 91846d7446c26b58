"""A plan of which nearly everything must be said."""

from __future__ import annotations

from dataops.v1 import common_pb2, imports_pb2

from tests.clients.fake_world import World


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
    plan.notices.add(code="NOT_BACKED_UP", message="no backup", severity=common_pb2.NOTICE_SEVERITY_WARNING)
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
