"""The command: what it prints where, and the exit code a script gets."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dataops.v1 import catalog_pb2, common_pb2, imports_pb2, jobs_pb2
from dataops_client.cli import main
from dataops_client.cli.plain import plain

from tests.clients.fake_world import DIGEST, EXPORT_ID, IMPORT_ID, JOB_ID, TOKEN, World

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("configured")


def test_entities_are_tab_separated_lines_when_piped(capsys):
    assert main(["entities"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "entity\tgroup\trows\tsize\tkey"
    assert lines[1:] == [f"{name}\t\t5\t0 B\tid" for name in ("users", "tokens", "points_rules")]


def test_the_fields_of_an_entity_say_what_may_be_done_with_them(world: World, capsys):
    world.entities["users"] = catalog_pb2.Entity(
        name="users",
        key_fields=["id"],
        fields=[
            catalog_pb2.Field(name="id", type="bigint", unique=True, identity=True),
            catalog_pb2.Field(name="email", type="text", required=True, unique=True, filterable=True),
            catalog_pb2.Field(name="full", type="text", generated=True, secret=True),
        ],
    )

    assert main(["entities", "users"]) == 0

    assert capsys.readouterr().out.splitlines() == [
        "field\ttype\tkey\trequired\tunique\tfilterable\tsecret\tgenerated\treference",
        "id\tbigint\tkey\t\tunique\t\t\tgenerated\t",
        "email\ttext\t\trequired\tunique\tfilterable\t\t\t",
        "full\ttext\t\t\t\t\tsecret\tgenerated\t",
    ]


@pytest.mark.parametrize("option", [["--json"], ["-o", "json"]])
def test_entities_are_one_json_document_on_request(option: list[str], capsys):
    assert main(["entities", *option]) == 0

    found = json.loads(capsys.readouterr().out)
    assert [e["name"] for e in found] == ["users", "tokens", "points_rules"]
    assert found[0]["estimated_rows"] == 5


@pytest.mark.parametrize(
    "command",
    [
        ["entities", "-o", "json"],
        ["import", "users.csv", "--entity", "users", "--yes", "-o", "json"],
        ["import", "users.csv", "--entity", "users", "--plan-only", "-o", "json"],
        ["imports", "list", "-o", "json"],
        ["imports", "show", IMPORT_ID, "-o", "json"],
        ["imports", "changes", IMPORT_ID, "-o", "json"],
        ["imports", "errors", IMPORT_ID, "-o", "json"],
        ["imports", "apply", IMPORT_ID, "--yes", "-o", "json"],
        ["imports", "cancel", IMPORT_ID, "-o", "json"],
        ["imports", "report", IMPORT_ID, "-o", "report.json", "--json"],
        ["export", "users", "-o", "out.csv", "--json"],
        ["exports", "list", "-o", "json"],
        ["exports", "show", EXPORT_ID, "-o", "json"],
        ["exports", "download", EXPORT_ID, "-o", "out.csv", "--json"],
        ["exports", "delete", EXPORT_ID, "-o", "json"],
        ["jobs", "list", "-o", "json"],
        ["jobs", "show", JOB_ID, "-o", "json"],
        ["jobs", "retry", JOB_ID, "-o", "json"],
    ],
)
def test_json_is_all_that_stands_on_standard_output(
    command: list[str], world: World, users_csv: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.chdir(users_csv.parent)
    world.parts = {imports_pb2.REPORT_PART_REPORT: b"{}"}
    world.job.error.retryable = True

    assert main(command) == 0
    json.loads(capsys.readouterr().out)


def test_a_refusal_is_one_line_and_an_exit_code(capsys):
    assert main(["entities", "nothing"]) == 4

    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "dataops: ENTITY_UNKNOWN: no entity nothing\n")


def test_a_bad_token_is_exit_code_3(capsys):
    assert main(["--role", "none", "entities"]) == 3
    assert capsys.readouterr().err == "dataops: TOKEN_MISSING: no token found\n"


def test_a_missing_server_is_exit_code_6(tmp_path: Path, capsys):
    token = tmp_path / "token"
    token.write_text("t")

    # nothing listens on port 1
    assert main(["--address", "127.0.0.1:1", "--token-file", str(token), "entities"]) == 6
    assert capsys.readouterr().err.startswith("dataops: UNAVAILABLE: ")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--stack", "nowhere.json", "entities"], "cannot read nowhere.json: is `make up` running?"),
        (["--role", "king", "entities"], "has no token for role king, it has admin, none"),
        (["--token-file", "nowhere", "entities"], "cannot read nowhere"),
    ],
)
def test_a_wrong_configuration_is_exit_code_2(arguments: list[str], complaint: str, capsys):
    assert main(arguments) == 2
    assert complaint in capsys.readouterr().err


@pytest.fixture
def sourced(configured: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variables of another server and another caller, as a sourced env.sh leaves them."""
    token = tmp_path / "token"
    token.write_text("of another")
    monkeypatch.delenv("DATAOPS_STACK")
    monkeypatch.setenv("DATAOPS_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("DATAOPS_CA_FILE", str(token))
    monkeypatch.setenv("DATAOPS_TOKEN_FILE", str(token))
    monkeypatch.setenv("DATAOPS_TOKEN", "of a third")


@pytest.mark.usefixtures("sourced")
def test_a_stack_on_the_command_line_wins_over_variables(stack_file: Path):
    assert main(["--stack", str(stack_file), "entities"]) == 0
    assert main(["--stack", str(stack_file), "--role", "none", "entities"]) == 3


def test_a_role_on_the_command_line_wins_over_a_token_variable(
    sourced: None, stack_file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DATAOPS_STACK", str(stack_file))
    monkeypatch.delenv("DATAOPS_ADDRESS")
    monkeypatch.delenv("DATAOPS_CA_FILE")

    assert main(["entities"]) == 3
    assert main(["--role", "admin", "entities"]) == 0


@pytest.mark.usefixtures("sourced")
def test_an_address_and_a_token_file_on_the_command_line_win_too(stack_file: Path, tmp_path: Path):
    stack = json.loads(stack_file.read_text())
    token = tmp_path / "right"
    token.write_text(TOKEN)

    address = ["--address", stack["address"], "--ca-file", stack["ca_file"]]
    assert main([*address, "--token-file", str(token), "entities"]) == 0
    assert main(["--stack", str(stack_file), "--address", "127.0.0.1:1", "entities"]) == 6


@pytest.mark.usefixtures("sourced")
def test_a_role_needs_a_stack_and_no_other_token(stack_file: Path, capsys):
    assert main(["--role", "none", "entities"]) == 2
    assert "--role chooses a token of a stack" in capsys.readouterr().err

    assert main(["--stack", str(stack_file), "--role", "admin", "--token-file", "t", "entities"]) == 2
    assert "--role and --token-file: found both" in capsys.readouterr().err


def test_no_configuration_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.delenv("DATAOPS_STACK")

    assert main(["entities"]) == 2
    assert "give --address or DATAOPS_ADDRESS" in capsys.readouterr().err

    monkeypatch.setenv("DATAOPS_ADDRESS", "127.0.0.1:1")
    assert main(["entities"]) == 2
    assert "set DATAOPS_TOKEN" in capsys.readouterr().err


def test_an_import_with_yes_applies_the_plan_it_was_given(users_csv: Path, world: World, capsys):
    assert main(["import", str(users_csv), "--entity", "users", "--yes"]) == 0

    (applied,) = world.applied_with
    captured = capsys.readouterr()
    assert applied.plan_digest == DIGEST
    assert "inserted      1,200" in captured.out
    assert "upload: 25 B of 25 B" in captured.err
    assert "copy: 1,500 of 3,000 rows · 800 rows/s" in captured.err
    assert "CHECKED_AT_APPLY: one check is left" in captured.err


def test_an_import_that_nobody_can_confirm_changes_nothing_and_says_so(users_csv: Path, world: World, capsys):
    assert main(["import", str(users_csv), "--entity", "users"]) == 9

    out = capsys.readouterr().out
    assert not world.applied_with
    assert f"dataops imports apply {IMPORT_ID}" in out
    assert "7\tFAILED\tINVALID_VALUE\temail\tno address\ta b [31m" in out


def test_a_plan_alone_is_a_success(users_csv: Path, world: World, capsys):
    assert main(["import", str(users_csv), "--entity", "users", "--plan-only", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert not world.applied_with
    assert found["status"] == "AWAITING_APPROVAL"
    assert found["plan"]["plan_digest"] == DIGEST.hex()
    assert found["plan"]["counts"]["inserts"] == 1200


def test_strict_tells_refused_rows_by_exit_code(users_csv: Path):
    assert main(["import", str(users_csv), "--entity", "users", "--yes", "--strict", "-q"]) == 8


def test_a_planned_import_is_applied_later(world: World, capsys):
    assert main(["imports", "apply", IMPORT_ID, "--yes"]) == 0

    assert len(world.applied_with) == 1
    assert "status        COMPLETED" in capsys.readouterr().out


def test_an_import_whose_plan_fails_says_why(users_csv: Path, world: World, capsys):
    world.job.state = jobs_pb2.JOB_STATE_FAILED
    world.job.error.reason, world.job.error.message = "COLUMN_UNKNOWN", "column nick is not a field of users"
    world.job.resource = f"imports/{IMPORT_ID}"

    assert main(["import", str(users_csv), "--entity", "users", "--yes"]) == 5
    assert capsys.readouterr().err.endswith(
        "dataops: COLUMN_UNKNOWN: column nick is not a field of users\n"
        f"import {IMPORT_ID}, job {JOB_ID}: dataops imports show {IMPORT_ID} shows it\n"
    )


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (["--mode", "sideways"], "'sideways' is no mode; expected additive, upsert or replace"),
        (["--map", "email"], "expected FIELD=COLUMN"),
        (["--format", "doc"], "'doc' is no format; expected csv, json, jsonl or bundle"),
    ],
)
def test_a_wrong_option_is_exit_code_2_before_anything_is_sent(
    option: list[str], complaint: str, users_csv: Path, world: World, capsys
):
    assert main(["import", str(users_csv), "--entity", "users", *option]) == 2
    assert complaint in capsys.readouterr().err
    assert not world.uploads


def test_an_export_writes_its_file_and_prints_its_size(world: World, tmp_path: Path, capsys):
    world.export = b"id\n1\n2\n3\n"
    path = tmp_path / "out.csv"

    assert main(["export", "users", "-o", str(path)]) == 0

    captured = capsys.readouterr()
    assert path.read_bytes() == world.export
    assert captured.out == f"3 rows, 9 B, in {path}\n"
    assert "download: 9 B" in captured.err


def test_the_jobs_are_listed_watched_and_cancelled(world: World, capsys):
    assert main(["jobs", "list"]) == 0
    assert f"{JOB_ID}\tEXPORT\tCOMPLETED" in capsys.readouterr().out

    assert main(["jobs", "watch", JOB_ID, "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["sequence"] for event in events] == [1, 2, 3]
    assert events[1]["progress"]["rows_done"] == 1500

    world.job.state = jobs_pb2.JOB_STATE_PENDING
    assert main(["jobs", "cancel", JOB_ID]) == 0
    assert "state     CANCELLED" in capsys.readouterr().out

    assert main(["jobs", "watch", JOB_ID, "-q"]) == 1


def test_help_does_not_wait_for_grpc():
    code = "import sys; from dataops_client.cli import main; main(['--help']); sys.exit('grpc' in sys.modules)"

    done = _run([sys.executable, "-c", code])

    assert done.returncode == 0, done.stderr
    assert "Exit codes" in done.stdout


def test_a_terminal_gets_live_bars(stack_file: Path):
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "dataops_client", "--stack", str(stack_file), "jobs", "watch", JOB_ID]

    with ThreadPoolExecutor(1) as pool:  # who reads only at the end gets the first 4 KiB, however much was shown
        reading = pool.submit(_read_all, controller)
        done = _run(command, stderr=terminal)
        os.close(terminal)
        shown = reading.result().decode()
    os.close(controller)
    assert done.returncode == 0
    assert "━" in shown
    assert "1,500 of 3,000 rows" in shown
    assert "state     COMPLETED" in done.stdout


def test_an_interrupted_watch_says_that_the_job_goes_on(monkeypatch: pytest.MonkeyPatch, capsys):
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dataops_client.client.DataOps.watch", interrupted)

    assert main(["jobs", "watch", JOB_ID]) == 130
    assert "goes on" in capsys.readouterr().err


def test_absent_and_null_are_told_apart_from_empty_in_json():
    event = jobs_pb2.JobEvent(job_id="j", notice=common_pb2.Notice(code="A", metadata={"k": "v"}))
    row_error = imports_pb2.ImportRowError(value="")

    assert plain(event)["notice"]["metadata"] == {"k": "v"}
    assert "progress" not in plain(event)
    assert plain(event)["time"] is None
    assert plain(row_error)["value"] == ""
    assert plain(imports_pb2.ImportRowError())["value"] is None
    assert plain(catalog_pb2.Entity(source=catalog_pb2.ENTITY_SOURCE_PLATFORM_TABLE))["source"] == "PLATFORM_TABLE"


def _read_all(controller: int) -> bytes:
    read = b""
    with contextlib.suppress(OSError):  # the far end is closed
        while more := os.read(controller, 100_000):
            read += more
    return read


def _run(command: list[str], stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "clients" / "python"),
        "TERM": "xterm-256color",
        "COLUMNS": "120",
    }
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, timeout=60, check=False
    )
