"""The demo's second half: a backup, damage on purpose, and the way back, proven equal."""

from __future__ import annotations

import hashlib
import itertools
import time

import psycopg
from dataops.v1 import restores_pb2
from dataops_client.client import DataOps
from psycopg import sql

from examples.stack.narrator import Narrator, megabytes

_SAMPLES = 3

DAMAGE = """
UPDATE public.users SET email = 'x' || id || '@example.org', password_hash = 'gone', status = 'SUSPENDED';
DELETE FROM public.points_ledger;
DELETE FROM public.tokens WHERE user_id < '80000000-0000-0000-0000-000000000000';
"""
"""What an UPDATE without its WHERE does, and a script that ran against the wrong database."""


class NotEqual(Exception):
    """The platform is not what it was; the message says where."""


class WayBack:
    """The story, step by step; each method is one chapter. The client is a super admin's: nobody else restores."""

    def __init__(self, platform_dsn: str, client: DataOps, tell: Narrator) -> None:
        self.dsn = platform_dsn
        self.client = client
        self.tell = tell

    def run(self) -> restores_pb2.Restore:
        """All of it; the restore that was done."""
        before = self.fingerprints()
        backup_id = self.back_up()
        self.damage()
        self.compare_backup(backup_id)
        planned = self.plan(backup_id)
        done = self.confirm(planned)
        self.compare(before)
        return done

    def back_up(self) -> str:
        """Everything, at one moment."""
        self.tell.step(
            "Back everything up",
            "One snapshot, counted twice, sealed, opened again. What is not covered is listed.",
        )
        began = time.monotonic()
        backup = self.client.create_backup(name="before the accident", reason="make demo", on_event=self.tell.on_event)
        self.tell.stage_over()
        rows = sum(entity.rows for entity in backup.entities)
        self.tell.say(
            f"{rows:,} rows of {len(backup.entities)} entities in {time.monotonic() - began:.1f} s,"
            f" {megabytes(backup.file_size_bytes)} sealed"
        )
        self.tell.say(f"manifest sha256 {backup.checksum}")
        return backup.backup_id

    def damage(self) -> None:
        """The accident, past us, as accidents come."""
        self.tell.step("Damage the platform on purpose", "An UPDATE without its WHERE, and two careless DELETEs.")
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in filter(None, map(str.strip, DAMAGE.split(";"))):
                done = connection.execute(statement.encode())
                self.tell.say(f"{statement.split(' WHERE ')[0][:60]} …: {done.rowcount:,} rows")

    def compare_backup(self, backup_id: str) -> None:
        """Look before you restore."""
        self.tell.step("Compare the backup with what is there", "By key, value by value; nothing is written.")
        job_id = self.client.diff_backup(backup_id, reason="make demo", on_event=self.tell.on_event)
        self.tell.stage_over()
        for counts in self.client.backup_difference_counts(job_id):
            if counts.only_in_backup or counts.only_live or counts.different:
                self.tell.say(
                    f"{counts.entity:<20} {counts.only_in_backup:>8,} gone, {counts.only_live:>6,} new,"
                    f" {counts.different:>8,} different"
                )
        for row in itertools.islice(self.client.backup_differences(job_id, entity="users"), _SAMPLES):
            fields = ", ".join(f"{f.name}: {'masked' if f.masked else f'{f.old} -> {f.new}'}" for f in row.fields)
            self.tell.say(f"            users {row.key[0].value[:8]}…  {fields[:90]}")

    def plan(self, backup_id: str) -> restores_pb2.Restore:
        """What the way back will cost."""
        self.tell.step("Plan the restore", "The backup is opened byte by byte and compared. Nothing is touched.")
        planned = self.client.create_restore(backup_id, reason="make demo", on_event=self.tell.on_event)
        self.tell.stage_over()
        lost = sum(entity.rows_lost for entity in planned.plan.entities)
        changed = sum(entity.rows_changed for entity in planned.plan.entities)
        self.tell.say(f"{lost:,} rows will be gone, {changed:,} will have the backup's values again")
        self.tell.say(f"to be typed: {planned.plan.confirmation_phrase}")
        return planned

    def confirm(self, planned: restores_pb2.Restore) -> restores_pb2.Restore:
        """The typed phrase, and then one transaction."""
        self.tell.step(
            "Confirm it",
            "Everybody waits, what is there now is backed up, and only then is anything changed: one transaction,\n"
            "   whose tables must equal the backup by count and fingerprint before it commits.",
        )
        done = self.client.confirm_restore(
            planned, planned.plan.confirmation_phrase, reason="make demo", on_event=self.tell.on_event
        )
        self.tell.stage_over()
        self.tell.say(f"everybody waited {done.report.outage.ToTimedelta().total_seconds():.1f} s")
        self.tell.say(f"what was there before is in backup {done.pre_restore_backup_id}")
        return done

    def compare(self, before: dict[str, str]) -> None:
        """Every table of the platform, read past us."""
        self.tell.step("Compare every table", "Read by psycopg, not by us: the rows before the accident and now.")
        now = self.fingerprints()
        for table, digest in before.items():
            if now.get(table) != digest:
                raise NotEqual(f"{table} is not what it was before the damage")
        self.tell.say(f"{len(before)} tables are equal, row by row")

    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of every table's rows, as text, in an order of their own."""
        found = {}
        with psycopg.connect(self.dsn) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
            for (table,) in tables.fetchall():
                digest = hashlib.sha256()
                query = sql.SQL('SELECT (t.*)::text COLLATE "C" FROM public.{} t ORDER BY 1').format(
                    sql.Identifier(table)
                )
                for (row,) in connection.execute(query):
                    digest.update(row.encode() + b"\n")
                found[str(table)] = digest.hexdigest()
        return found
