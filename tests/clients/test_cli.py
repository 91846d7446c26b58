"""The command: what it prints where, and the exit code a script gets."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from dataops.v1 import catalog_pb2, common_pb2, imports_pb2, jobs_pb2
from dataops_client.cli import main
from dataops_client.cli.plain import plain

from tests.clients.fake_server import TOKEN, FakeServer, World

ROOT = Path(__file__).resolve().parents[2]
JOB_ID = "0197a000-0000-7000-8000-00000000000b"
IMPORT_ID = "0197a000-0000-7000-8000-00000000000c"
EXPORT_ID = "0197a000-0000-7000-8000-00000000000d"
DIGEST = bytes(range(32))


@pytest.fixture
def stack_file(server: FakeServer, tmp_path: Path) -> Path:
    """What `make up` writes."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(server.ca)
    path = tmp_path / "stack.json"
    path.write_text(
        json.dumps({"address": server.address, "ca_file": str(ca), "tokens": {"admin": TOKEN, "none": "bad"}})
    )
    return path


@pytest.fixture(autouse=True)
def configured(stack_file: Path, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """The environment names the stack; the world has one finished job and one planned import."""
    for name in [name for name in os.environ if name.startswith("DATAOPS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATAOPS_STACK", str(stack_file))
    world.job = jobs_pb2.Job(
        job_id=JOB_ID,
        kind=jobs_pb2.JOB_KIND_EXPORT,
        state=jobs_pb2.JOB_STATE_COMPLETED,
        resource=f"exports/{EXPORT_ID}",
        last_sequence=3,
    )
    world.events = [
        jobs_pb2.JobEvent(job_id=JOB_ID, sequence=1, stage_change=jobs_pb2.JobStageChange(new_stage="copy")),
        jobs_pb2.JobEvent(
            job_id=JOB_ID,
            sequence=2,
            progress=common_pb2.Progress(stage="copy", rows_done=1500, rows_estimated=3000, rows_per_second=800),
        ),
        jobs_pb2.JobEvent(
            job_id=JOB_ID, sequence=3, notice=common_pb2.Notice(code="NOT_BACKED_UP", message="no backup")
        ),
    ]
    world.imported = imports_pb2.Import(
        import_id=IMPORT_ID,
        entity_type="users",
        entity_types=["users"],
        status=imports_pb2.IMPORT_STATUS_AWAITING_APPROVAL,
        plan_job_id=JOB_ID,
        failed_records=1,
        plan=imports_pb2.PlanSummary(plan_digest=DIGEST, counts=imports_pb2.ChangeCounts(inserts=1200, failed=1)),
        report=imports_pb2.ImportReport(total_records=1201, inserted=1200, failed=1, rows_after=1200),
    )
    world.row_errors = [
        imports_pb2.ImportRowError(
            row=7,
            field="email",
            code="INVALID_VALUE",
            message="no address",
            value="a\tb\x1b[31m",
            severity=imports_pb2.ROW_ERROR_SEVERITY_FAILED,
        )
    ]


@pytest.fixture
def users_csv(tmp_path: Path) -> Path:
    path = tmp_path / "users.csv"
    path.write_text("id,email\n1,a@example.org\n")
    return path


def test_entities_are_tab_separated_lines_when_piped(capsys):
    assert main(["entities"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "entity\tgroup\trows\tsize\tkey"
    assert lines[1:] == [f"{name}\t\t5\t0 B\tid" for name in ("users", "tokens", "points_rules")]


@pytest.mark.parametrize("option", [["--json"], ["-o", "json"]])
def test_entities_are_one_json_document_on_request(option: list[str], capsys):
    assert main(["entities", *option]) == 0

    found = json.loads(capsys.readouterr().out)
    assert [e["name"] for e in found] == ["users", "tokens", "points_rules"]
    assert found[0]["estimated_rows"] == 5


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
    assert "NOT_BACKED_UP: no backup" in captured.err


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
    world.job.error.reason, world.job.error.message = "UNKNOWN_COLUMN", "column nick is not a field of users"

    assert main(["import", str(users_csv), "--entity", "users", "--yes"]) == 1
    assert capsys.readouterr().err.endswith("dataops: UNKNOWN_COLUMN: column nick is not a field of users\n")


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (["--mode", "sideways"], "'sideways' is no mode"),
        (["--map", "email"], "expected FIELD=COLUMN"),
        (["--format", "doc"], "'doc' is no format"),
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


def test_the_jobs_are_listed_watched_and_cancelled(capsys):
    assert main(["jobs", "list"]) == 0
    assert f"{JOB_ID}\tEXPORT\tCOMPLETED" in capsys.readouterr().out

    assert main(["jobs", "watch", JOB_ID, "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["sequence"] for event in events] == [1, 2, 3]
    assert events[1]["progress"]["rows_done"] == 1500

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

    done = _run(command, stderr=terminal)

    os.close(terminal)
    shown = os.read(controller, 100_000).decode()
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


def _run(command: list[str], stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "clients" / "python"),
        "TERM": "xterm-256color",
        "COLUMNS": "120",
    }
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, timeout=60, check=False
    )
