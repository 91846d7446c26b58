"""A fake server over real TLS, and a client of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dataops.v1 import backups_pb2, catalog_pb2, common_pb2, imports_pb2, jobs_pb2, restores_pb2
from dataops_client import DataOps
from dataops_client.channel import open_channel

from tests.clients import fake_server
from tests.clients.fake_server import FakeServer
from tests.clients.fake_world import DIGEST, EXPORT_ID, IMPORT_ID, JOB_ID, TOKEN, World
from tests.clients.plans import make_backup, plan_replace, plan_restore


@pytest.fixture(scope="session")
def certificate() -> tuple[bytes, bytes]:
    return fake_server.make_certificate()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def server(world: World, certificate: tuple[bytes, bytes]) -> Iterator[FakeServer]:
    yield from fake_server.serve(world, *certificate)


@pytest.fixture
def client(server: FakeServer) -> Iterator[DataOps]:
    with DataOps(open_channel(server.address, ca=server.ca, token=TOKEN)) as client:
        yield client


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


@pytest.fixture
def configured(stack_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """The environment names the stack and a folder of its own; the world has a finished job and a planned import."""
    for name in [name for name in os.environ if name.startswith("DATAOPS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATAOPS_STACK", str(stack_file))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
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
            job_id=JOB_ID, sequence=3, notice=common_pb2.Notice(code="CHECKED_AT_APPLY", message="one check is left")
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
    names = ("email", "name", "phone")
    world.entities = {"users": catalog_pb2.Entity(name="users", fields=[catalog_pb2.Field(name=n) for n in names])}
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


@pytest.fixture
def planned(world: World, configured: None) -> imports_pb2.Import:
    """The planned import is a REPLACE of which nearly everything must be said."""
    return plan_replace(world)


@pytest.fixture
def backup(world: World, configured: None) -> backups_pb2.Backup:
    """A complete backup, proven and not wholly so."""
    return make_backup(world)


@pytest.fixture
def restore(backup: backups_pb2.Backup, world: World) -> restores_pb2.Restore:
    """The restore to it is planned, and nearly everything must be said of its plan."""
    return plan_restore(world)
