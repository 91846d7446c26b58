"""Backups and restores as an operator meets them: the command, a real server and real workers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dataops_client.cli import main

from examples.stack.stack import Stack

Run = Callable[..., Any]
USERS = "SELECT md5(string_agg(u::text, ',' ORDER BY id)) FROM public.users u"


@pytest.fixture
def run(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one command as a super admin and gives what it printed as JSON; `code` is the exit it must have."""
    (tmp_path / "stack.json").write_text(json.dumps(stack.describe()))
    for name in [name for name in os.environ if name.startswith("DATAOPS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATAOPS_STACK", str(tmp_path / "stack.json"))
    monkeypatch.setenv("DATAOPS_ROLE", "super_admin")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def call(*words: str, code: int = 0) -> Any:
        capsys.readouterr()
        found = main([*words, "--json"])
        printed = capsys.readouterr()
        assert found == code, printed.err
        return json.loads(printed.out) if printed.out.strip() else None

    return call


def platform(stack: Stack, query: str) -> Any:
    with psycopg.connect(stack.platform_dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchone()[0] if cursor.description else None  # type: ignore[index]


def test_a_bad_import_is_taken_back_by_the_backup_before_it(run: Run, stack: Stack, tmp_path: Path):
    ident = platform(stack, "SELECT min(id::text) FROM public.users")
    before = platform(stack, USERS)
    (tmp_path / "bad.jsonl").write_text(json.dumps({"id": ident, "name": "Overwritten"}) + "\n")
    done = run("import", "bad.jsonl", "--entity", "users", "--mode", "upsert", "--yes", "-q")
    assert done["report"]["updated"] == 1

    backup = run("backup", "show", done["pre_import_backup_id"])
    assert (backup["trigger_type"], backup["status"]) == ("PRE_IMPORT", "COMPLETED")
    assert "users" in [e["entity"] for e in backup["entities"]]
    differences = run("backup", "diff", backup["backup_id"], "users", "-q")["differences"]
    assert [(d["kind"], d["key"][0]["value"]) for d in differences] == [("UPDATE", ident)]

    other = run("backup", "create", "points_rules", "-q")
    job = run("jobs", "list", "--resource", f"backups/{backup['backup_id']}", "--kind", "backup-diff")[0]["job_id"]
    assert run("backup", "diff", backup["backup_id"], "--job", job, "-q")["differences"] == differences
    run("backup", "diff", other["backup_id"], "--job", job, "-q", code=5)

    back = run(
        "backup", "extract", backup["backup_id"], "--entity", "users", "--key", f"id={ident}", "--plan-only", "-q"
    )
    assert (back["plan"]["counts"]["updates"], back["plan"]["counts"]["inserts"]) == (1, 0)

    planned = run("restore", "plan", backup["backup_id"], "users", "--reason", "a bad import", "-q")
    assert planned["status"] == "AWAITING_CONFIRMATION"
    (entity,) = planned["plan"]["entities"]
    assert (entity["rows_lost"], entity["rows_changed"]) == (0, 1)
    (loss,) = run("restore", "losses", planned["restore_id"])
    assert (loss["key"][0]["value"], loss["changed_fields"]) == (ident, ["name"])
    run("restore", "confirm", planned["restore_id"], "-q", code=9)
    run("restore", "confirm", planned["restore_id"], "--phrase", "yes", "-q", code=5)
    assert platform(stack, USERS) != before, "nothing was restored yet"

    phrase = planned["plan"]["confirmation_phrase"]
    restored = run("restore", "confirm", planned["restore_id"], "--phrase", phrase, "-q")
    assert restored["status"] == "COMPLETED"
    assert restored["report"]["entities"][0]["rows_changed"] == 1
    assert platform(stack, USERS) == before
    assert run("backup", "show", restored["pre_restore_backup_id"])["trigger_type"] == "PRE_RESTORE"
    assert run("backup", "show", backup["backup_id"])["status"] == "RESTORED"
    run("restore", "confirm", planned["restore_id"], "--phrase", phrase, "-q", code=5)


def test_a_backup_is_made_proven_held_and_deleted(run: Run):
    made = run("backup", "create", "points_rules", "--hold", "--name", "rules", "-q")
    assert (made["status"], made["held"], made["name"]) == ("COMPLETED", True, "rules")
    for level in ("present", "decoded", "restored"):
        assert run("backup", "verify", made["backup_id"], "--level", level, "-q")["good"] is True
    assert [v["level"] for v in run("backup", "show", made["backup_id"])["verifications"]] == [
        "PRESENT",
        "DECODED",
        "RESTORED",
    ]

    since = run("backup", "create", "points_rules", "--incremental", "-q")
    assert (since["backup_type"], since["parent_backup_id"]) == ("INCREMENTAL", made["backup_id"])
    assert since["total_size_bytes"] == since["file_size_bytes"] + made["file_size_bytes"]
    assert run("backup", "show", made["backup_id"])["freeable_size_bytes"] == 0, "another builds on it"
    run("backup", "delete", since["backup_id"], "--yes")

    run("backup", "delete", made["backup_id"], code=9)
    run("backup", "delete", made["backup_id"], "--yes", code=5)
    run("backup", "release", made["backup_id"])
    assert run("backup", "delete", made["backup_id"], "--yes")["status"] == "DELETED"
    listed = run("backup", "list", "--entity", "points_rules", "--status", "deleted", "--limit", "2")
    assert [b["backup_id"] for b in listed] == [since["backup_id"], made["backup_id"]]


def test_an_admin_makes_backups_and_may_not_go_back_to_one(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATAOPS_ROLE", "admin")
    made = run("backup", "create", "points_rules", "-q")

    run("restore", "plan", made["backup_id"], "-q", code=3)
    run("restore", "list", code=3)
