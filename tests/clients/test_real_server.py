"""The client against the server itself: what the fake server shows holds there too."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dataops.v1 import uploads_pb2
from dataops_client.cli import main
from dataops_client.errors import InvalidRequest, NotAuthenticated, NotFound, PermissionDenied
from dataops_client.upload import upload_file

from examples.stack.stack import Stack

MIB = 1024 * 1024
NOBODYS = "0197a000-0000-7000-8000-0000000000ff"


def test_an_upload_arrives_equal(stack: Stack, tmp_path: Path):
    path = tmp_path / "users.csv"
    path.write_bytes(os.urandom(20 * MIB + 3))

    with stack.client("admin") as client:
        upload = client.upload(path)

    assert upload.state == uploads_pb2.UPLOAD_STATE_FINISHED
    assert upload.sha256 == hashlib.sha256(path.read_bytes()).digest()
    assert upload.committed_size == path.stat().st_size


def test_an_upload_outlives_its_server(stack: Stack, tmp_path: Path):
    path = tmp_path / "users.csv"
    path.write_bytes(os.urandom(80 * MIB))
    far, killed = threading.Event(), threading.Event()

    def pause_once(done: int, _size: int | None) -> None:
        if done >= 70 * MIB and not far.is_set():
            far.set()
            killed.wait(60)

    with stack.client("admin") as client, ThreadPoolExecutor(1) as beside:
        upload = beside.submit(upload_file, client.uploads, path, on_bytes=pause_once)
        assert far.wait(60)
        stack.kill_server()
        killed.set()
        stack.start_server()
        finished = upload.result(120)

    assert finished.sha256 == hashlib.sha256(path.read_bytes()).digest()


def test_refusals_have_their_classes(stack: Stack):
    with stack.client("admin") as client:
        with pytest.raises(NotFound) as missing:
            client.get_job(NOBODYS)
        with pytest.raises(InvalidRequest) as wrong:
            client.get_job("no-uuid")
    with stack.client("none") as nobody, pytest.raises(PermissionDenied):
        list(nobody.entities())
    with stack.client(None) as unknown, pytest.raises(NotAuthenticated):
        list(unknown.entities())

    assert missing.value.reason.startswith("JOB_")
    assert [violation.subject for violation in wrong.value.violations] == ["job_id"]


@pytest.fixture
def configured(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """The environment names the stack, as `make up` says to."""
    path = tmp_path / "stack.json"
    path.write_text(json.dumps(stack.describe()))
    for name in [name for name in os.environ if name.startswith("DATAOPS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATAOPS_STACK", str(path))
    return stack


def test_the_command_exports_and_imports_again(configured: Stack, tmp_path: Path, capsys):
    users, new = tmp_path / "users.csv", tmp_path / "new.csv"
    assert main(["export", "users", "-o", str(users), "-q", "--json"]) == 0
    exported = json.loads(capsys.readouterr().out)
    header, *rows = users.read_text().splitlines()
    assert exported["status"] == "COMPLETED"
    assert exported["record_count"] == len(rows)

    new.write_text("\n".join([header, *rows[:5]]) + "\n")
    assert main(["import", str(new), "--entity", "users", "--undo-formula-guard", "--yes", "-q", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["report"]
    assert (report["total_records"], report["skipped"], report["inserted"]) == (5, 5, 0)

    assert main(["jobs", "list", "--state", "completed", "--json"]) == 0
    kinds = [job["kind"] for job in json.loads(capsys.readouterr().out)]
    assert {"EXPORT", "IMPORT_PLAN", "IMPORT_APPLY"} <= set(kinds)


def test_the_command_shows_the_caller_and_the_catalog(configured: Stack, capsys):
    assert main(["whoami", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["roles"] == ["admin"]

    assert main(["entities", "users", "--json"]) == 0
    fields = {field["name"]: field for field in json.loads(capsys.readouterr().out)["fields"]}
    assert fields["password_hash"]["secret"] is True
