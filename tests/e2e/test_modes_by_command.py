"""Modes, formats, mappings and bundles as an operator meets them: the command, a real server and real workers."""

from __future__ import annotations

import csv
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


@pytest.fixture
def run(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one command against the stack and gives what it printed as JSON; `code` is the exit it must have."""
    (tmp_path / "stack.json").write_text(json.dumps(stack.describe()))
    for name in [name for name in os.environ if name.startswith("DATAOPS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATAOPS_STACK", str(tmp_path / "stack.json"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)

    def call(*words: str, code: int = 0) -> Any:
        found = main([*words, "-q", "--json"] if words[0] in ("import", "export") else [*words, "--json"])
        printed = capsys.readouterr()
        assert found == code, printed.err
        return json.loads(printed.out) if printed.out.strip() else None

    return call


def platform(stack: Stack, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(stack.platform_dsn, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def test_rows_are_changed_by_a_mapped_file_and_its_refused_ones_come_back(run: Run, stack: Stack, tmp_path: Path):
    known = platform(stack, "SELECT email FROM public.users ORDER BY email LIMIT 2")
    rows = [["Mail", "Land", "Seit"], [known[0][0].upper(), " de ", "24.12.2025"], [known[1][0], "Nowhere", "1.1.2026"]]
    with (tmp_path / "crm.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    (tmp_path / "mapping.toml").write_text(
        '[fields.email]\ncolumn = "Mail"\ncase = "lower"\n'
        '[fields.country]\ncolumn = "Land"\ntrim = true\ncase = "upper"\n'
        '[fields.created_at]\ncolumn = "Seit"\ndate_format = "%d.%m.%Y"\ntime_zone = "Europe/Berlin"\n'
    )
    done = run(
        "import", "crm.csv", "--entity", "users", "--mode", "upsert", "--key", "email", "--mapping", "mapping.toml",
        "--delimiter", ";", "--rejects", "rejects.csv", "--yes", "--strict", code=8,
    )  # fmt: skip

    assert (done["report"]["updated"], done["report"]["failed"]) == (1, 1)
    shown = platform(stack, f"SELECT country, created_at::text FROM public.users WHERE email = '{known[0][0]}'")
    assert shown == [("DE", "2025-12-23 23:00:00+00")]
    assert "Nowhere" in (tmp_path / "rejects.csv").read_text()
    errors = run("imports", "errors", done["import_id"])
    assert [(e["row"], e["field"], e["code"]) for e in errors] == [(3, "country", "TOO_LONG")]
    changes = run("imports", "changes", done["import_id"], "--kind", "update")
    assert {f["name"] for f in changes[0]["fields"]} == {"country", "created_at"}
    assert main(["imports", "report", done["import_id"], "--part", "changes", "--output", "changes.csv"]) == 0
    assert (tmp_path / "changes.csv").read_text().startswith("entity,row,kind,key,field,old,new\n")


def test_a_table_is_replaced_only_with_the_number_of_deletes_repeated(run: Run, stack: Stack, tmp_path: Path):
    entries = "public.sweepstakes_entries"
    ((there, kept, user),) = platform(
        stack, f"SELECT count(*), max(entry_id), (array_agg(user_id ORDER BY entry_id DESC))[1]::text FROM {entries}"
    )
    run("export", "sweepstakes_entries", "-o", "all.jsonl.gz")
    (tmp_path / "one.jsonl").write_text(json.dumps({"entry_id": kept, "user_id": user, "campaign": "new"}) + "\n")
    words = ("import", "one.jsonl", "--entity", "sweepstakes_entries", "--mode", "replace", "--yes")

    run(*words, code=9)
    run(*words, "--confirm-deletes", "3", code=9)
    done = run(*words, "--confirm-deletes", str(there - 1))

    assert (done["report"]["deleted"], done["report"]["updated"]) == (there - 1, 1)
    assert platform(stack, f"SELECT campaign FROM {entries}") == [("new",)]
    back = run("import", "all.jsonl.gz", "--entity", "sweepstakes_entries", "--mode", "upsert", "--yes")
    assert (back["report"]["inserted"], back["report"]["updated"]) == (there - 1, 1)
    assert platform(stack, f"SELECT count(*) FROM {entries}") == [(there,)]


def test_everything_goes_out_as_one_bundle_and_comes_back_as_nothing_new(run: Run):
    out = run("export", "--all", "-o", "platform.zip")
    assert {e["entity"] for e in out["entities"]} >= {"users", "points_ledger", "tokens"}
    done = run("import", "platform.zip", "--mode", "upsert", "--yes")

    assert done["status"] == "COMPLETED"
    assert done["report"]["unchanged"] == out["record_count"]
    assert len(done["entity_types"]) == len(out["entities"])


def test_a_filtered_part_has_only_what_was_asked_for(run: Run, stack: Stack, tmp_path: Path):
    out = run(
        "export", "users", "-o", "some.json", "--status", "ACTIVE", "--where", "country in DE,FR", "--columns",
        "id,country,status", "--order", "created_at:desc", "--limit", "7",
    )  # fmt: skip
    rows = json.loads((tmp_path / "some.json").read_text())

    assert out["record_count"] == len(rows) <= 7
    assert all(set(r) == {"id", "country", "status"} and r["status"] == "ACTIVE" for r in rows)
    expected = platform(
        stack, "SELECT id::text FROM public.users WHERE status = 'ACTIVE' AND country IN ('DE', 'FR')"
        " ORDER BY created_at DESC, id LIMIT 7",
    )  # fmt: skip
    assert [(r["id"],) for r in rows] == expected
