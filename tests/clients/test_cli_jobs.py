"""`dataops jobs`: what waits and for what, what failed and whether it may be tried again."""

from __future__ import annotations

import json

import pytest
from dataops.v1 import jobs_pb2
from dataops_client.cli import main

from tests.clients.fake_world import EXPORT_ID, JOB_ID, OTHER_JOB_ID, World

pytestmark = pytest.mark.usefixtures("configured")


def _listed(capsys) -> dict[str, str]:
    assert main(["jobs", "list"]) == 0
    header, row = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    return dict(zip(header, row, strict=True))


def test_a_job_that_waits_says_for_what(world: World, capsys):
    world.job.state = jobs_pb2.JOB_STATE_PENDING
    assert _listed(capsys)["waits"] == "for a worker"

    world.job.run_at.FromJsonString("2026-11-26T03:00:00Z")
    assert _listed(capsys)["waits"] == "until 2026-11-26T03:00:00Z"

    world.job.blocked_by.extend([OTHER_JOB_ID, EXPORT_ID])
    listed = _listed(capsys)
    assert (listed["waits"], listed["blocked by"]) == ("for 2 before it", f"{OTHER_JOB_ID},{EXPORT_ID}")

    world.job.state = jobs_pb2.JOB_STATE_RUNNING
    assert _listed(capsys)["waits"] == ""


def test_the_list_is_filtered(world: World, capsys):
    command = ["jobs", "list", "--state", "running", "--kind", "import-plan", "--resource", "imports/x", "--limit", "2"]
    assert main([*command, "--json"]) == 0

    assert len(json.loads(capsys.readouterr().out)) == 1
    assert world.lists(jobs_pb2.ListJobsRequest) == [
        jobs_pb2.ListJobsRequest(
            states=[jobs_pb2.JOB_STATE_RUNNING],
            kinds=[jobs_pb2.JOB_KIND_IMPORT_PLAN],
            resource="imports/x",
            page_size=2,
        )
    ]
    assert main(["jobs", "list", "--kind", "magic"]) == 2


def test_a_job_is_shown_with_blockers_attempts_and_error(world: World, capsys):
    world.job.state, world.job.attempt = jobs_pb2.JOB_STATE_FAILED, 3
    world.job.blocked_by.append(OTHER_JOB_ID)
    world.job.error.reason, world.job.error.message, world.job.error.retryable = "LOCK_TIMEOUT", "held", True
    world.job.created_at.FromJsonString("2026-11-26T03:00:00Z")

    assert main(["jobs", "show", JOB_ID]) == 0

    shown = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    found = {name.strip(): value.strip() for name, value in shown.items()}
    assert found["attempts"] == "3"
    assert found["blocked by"] == OTHER_JOB_ID
    assert found["error"] == "LOCK_TIMEOUT: held"
    assert found["retryable"] == "yes"
    assert found["created"] == "2026-11-26T03:00:00Z"


def test_a_job_is_tried_again_if_its_error_may_pass(world: World, capsys):
    world.job.state = jobs_pb2.JOB_STATE_FAILED
    assert main(["jobs", "retry", JOB_ID]) == 5
    assert "JOB_NOT_RETRYABLE" in capsys.readouterr().err

    world.job.error.retryable = True
    assert main(["jobs", "retry", JOB_ID, "--reason", "again", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "PENDING"


def test_an_unknown_job_is_exit_code_4(capsys):
    assert main(["jobs", "show", OTHER_JOB_ID]) == 4
    assert "JOB_UNKNOWN" in capsys.readouterr().err
