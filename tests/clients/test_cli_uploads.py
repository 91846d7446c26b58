"""`dataops uploads`: what lies at the server, and how to be rid of it."""

from __future__ import annotations

import json

import pytest
from dataops.v1 import uploads_pb2
from dataops_client.cli import main

from tests.clients.fake_world import IMPORT_ID, Held, World

pytestmark = pytest.mark.usefixtures("configured")

UPLOAD_ID = IMPORT_ID


@pytest.fixture
def upload(world: World) -> uploads_pb2.Upload:
    made = uploads_pb2.Upload(
        upload_id=UPLOAD_ID,
        file_name="users.csv",
        state=uploads_pb2.UPLOAD_STATE_OPEN,
        committed_size=8_000_000,
        declared_size=20_000_000,
    )
    world.uploads[UPLOAD_ID] = Held(made)
    return made


@pytest.mark.usefixtures("upload")
def test_uploads_are_listed_by_state(world: World, capsys):
    assert main(["uploads", "list", "--state", "open", "--limit", "3"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "upload\tfile\tstate\tarrived\tof\towner\tcreated"
    assert lines[1].startswith(f"{UPLOAD_ID}\tusers.csv\tOPEN\t8.0 MB\t20.0 MB\t")
    assert world.asked == [uploads_pb2.ListUploadsRequest(page_size=3, states=[uploads_pb2.UPLOAD_STATE_OPEN])]

    assert main(["uploads", "list", "--state", "finished", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_an_upload_is_aborted_once(upload: uploads_pb2.Upload, capsys):
    assert main(["uploads", "abort", UPLOAD_ID, "--reason", "wrong", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "ABORTED"
    assert upload.state == uploads_pb2.UPLOAD_STATE_ABORTED

    assert main(["uploads", "abort", UPLOAD_ID]) == 5
    assert "already ABORTED, nothing was aborted" in capsys.readouterr().err


def test_an_upload_that_there_is_not_is_exit_code_4(capsys):
    assert main(["uploads", "abort", UPLOAD_ID]) == 4
    assert "UPLOAD_UNKNOWN" in capsys.readouterr().err
