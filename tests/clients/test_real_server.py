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
from dataops_client import UploadMemory
from dataops_client.cli import main
from dataops_client.errors import InvalidRequest, NotAuthenticated, NotFound, PermissionDenied
from dataops_client.upload import upload_file

from examples.stack.stack import Stack
from tests.clients.terminal import interrupted

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
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
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


def test_the_command_shows_a_plan_and_what_it_does_to_each_row(configured: Stack, tmp_path: Path, capsys):
    users, renamed = tmp_path / "users.csv", tmp_path / "renamed.csv"
    assert main(["export", "users", "-o", str(users), "-q"]) == 0
    header, *rows = users.read_text().splitlines()
    renamed.write_text("\n".join([header.replace("email", "E-mail"), *rows[:2]]) + "\n")
    capsys.readouterr()

    command = ["import", str(renamed), "--entity", "users", "--undo-formula-guard", "--map", "email=E-mail", "-q"]
    assert main(command) == 9
    shown = capsys.readouterr().out
    import_id = shown.splitlines()[0].split()[1]
    assert "mode    ADDITIVE" in shown
    assert "inserts\tupdates\tunchanged\tdeletes\tskips\tfailed" in shown
    assert "others read and write on" in shown

    assert main(["imports", "changes", import_id, "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), list)
    assert main(["imports", "errors", import_id, "--severity", "skipped", "--json"]) == 0
    assert {error["severity"] for error in json.loads(capsys.readouterr().out)} == {"SKIPPED"}
    assert main(["imports", "cancel", import_id]) == 0


def test_an_interrupted_upload_goes_on_in_the_next_process(configured: Stack, tmp_path: Path):
    path = tmp_path / "users.csv"
    path.write_bytes(os.urandom(90 * MIB))
    command = ["import", str(path), "--entity", "users", "--yes"]
    server = configured.server
    with configured.client("admin") as client:

        def first_stream_is_in() -> bool:
            found = client.uploads.ListUploads(uploads_pb2.ListUploadsRequest()).uploads
            is_in = any(u.declared_size == 90 * MIB and u.committed_size >= 16 * MIB for u in found)
            if is_in:
                server.pause()  # else the rest could be in, too, before the command hears of the interrupt
            return is_in

        try:
            got, _, err = interrupted(command, first_stream_is_in)
        finally:
            server.resume()

        assert (got, "the same command again goes on with the upload" in err) == (130, True)
        (remembered,) = (tmp_path / "state" / "dataops" / "uploads").iterdir()
        begun = client.uploads.GetUpload(
            uploads_pb2.GetUploadRequest(upload_id=json.loads(remembered.read_text())["upload_id"])
        ).upload
        told: list[int] = []
        memory = UploadMemory(remembered.parent, str(configured.describe()["address"]))
        upload = client.upload(path, memory=memory, on_resumed=lambda found: told.append(found.committed_size))

    assert begun.state == uploads_pb2.UPLOAD_STATE_OPEN
    assert upload.upload_id == begun.upload_id
    assert told[0] >= 16 * MIB
    assert upload.sha256 == hashlib.sha256(path.read_bytes()).digest()
