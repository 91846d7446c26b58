"""What `cancel` says: stopped, asked to stop, or that there was nothing to stop."""

from __future__ import annotations

import json

import pytest
from dataops.v1 import exports_pb2, imports_pb2, jobs_pb2
from dataops_client.cli import main

from tests.clients.fake_world import EXPORT_ID, IMPORT_ID, JOB_ID, World

pytestmark = pytest.mark.usefixtures("configured")

CANCELS = [["imports", "cancel", IMPORT_ID], ["exports", "cancel", EXPORT_ID], ["jobs", "cancel", JOB_ID]]


@pytest.mark.parametrize("command", CANCELS)
def test_what_has_ended_is_not_cancelled(command: list[str], world: World, capsys):
    world.imported.status = imports_pb2.IMPORT_STATUS_COMPLETED

    assert main([*command, "--json"]) == 5

    captured = capsys.readouterr()
    assert captured.err == "dataops: already COMPLETED, nothing was cancelled\n"
    assert "COMPLETED" in json.loads(captured.out).values()


@pytest.mark.parametrize("command", CANCELS)
def test_what_runs_is_asked_to_stop(command: list[str], world: World, capsys):
    world.imported.status = imports_pb2.IMPORT_STATUS_PROCESSING
    world.job.state = jobs_pb2.JOB_STATE_RUNNING
    world.export_status = exports_pb2.EXPORT_STATUS_PROCESSING

    assert main(command) == 0

    err = capsys.readouterr().err
    assert err.startswith("the cancel is requested, it is ")
    assert f"dataops jobs watch {JOB_ID} follows it" in err


def test_what_waits_is_cancelled_at_once_and_only_once(capsys):
    assert main(["imports", "cancel", IMPORT_ID]) == 0
    assert capsys.readouterr().err == ""

    assert main(["imports", "cancel", IMPORT_ID]) == 5
    assert "already CANCELLED, nothing was cancelled" in capsys.readouterr().err
