"""`dataops overview`: one screen, on which what needs somebody is marked."""

from __future__ import annotations

import json

import pytest
from dataops.v1 import (
    backups_pb2,
    catalog_pb2,
    common_pb2,
    exports_pb2,
    imports_pb2,
    jobs_pb2,
    overview_pb2,
)
from dataops_client.cli import main
from dataops_client.cli.overview_output import ago
from google.protobuf.timestamp_pb2 import Timestamp

from tests.clients.fake_world import BACKUP_ID, EXPORT_ID, IMPORT_ID, JOB_ID, World

pytestmark = pytest.mark.usefixtures("configured")


def at(text: str) -> Timestamp:
    moment = Timestamp()
    moment.FromJsonString(text)
    return moment


NOW, NIGHT = at("2026-11-26T13:00:00Z"), at("2026-11-26T02:00:00Z")

HEALTHY = overview_pb2.GetOverviewResponse(
    as_of=NOW,
    last_backup=backups_pb2.Backup(
        backup_id=BACKUP_ID,
        trigger_type=backups_pb2.TRIGGER_TYPE_SCHEDULED,
        status=backups_pb2.BACKUP_STATUS_COMPLETED,
        created_at=NIGHT,
    ),
    last_good_backup_at=NIGHT,
    all_entities_good_at=NIGHT,
    last_proven_backup_at=at("2026-11-24T13:00:00Z"),
    newest_proven_backup_at=at("2026-11-23T02:00:00Z"),
    next_scheduled_backup_at=at("2026-11-27T02:00:00Z"),
    available_backups=12,
    schedules=overview_pb2.ScheduleSummary(schedules=2),
    recent_exports=[
        exports_pb2.Export(
            export_id=EXPORT_ID,
            export_type=exports_pb2.EXPORT_TYPE_FULL,
            status=exports_pb2.EXPORT_STATUS_COMPLETED,
            record_count=1500,
            file_size_bytes=2_500_000,
            created_at=NIGHT,
        )
    ],
    recent_imports=[
        imports_pb2.Import(
            import_id=IMPORT_ID,
            import_type=imports_pb2.IMPORT_TYPE_UPSERT,
            entity_type="users",
            status=imports_pb2.IMPORT_STATUS_COMPLETED,
            successful_records=150,
            failed_records=2,
            created_at=NIGHT,
        )
    ],
    active_jobs=[
        jobs_pb2.Job(
            job_id=JOB_ID,
            kind=jobs_pb2.JOB_KIND_EXPORT,
            state=jobs_pb2.JOB_STATE_RUNNING,
            stage="copy",
            resource=f"exports/{EXPORT_ID}",
            created_at=NOW,
        )
    ],
    active_job_count=3,
    uncovered=[catalog_pb2.UncoveredRelation(relation="public.v", code="NOT_AN_ENTITY", message="it is a view")],
    uncovered_count=1,
)

SHOWN = f"""\
Data operations, 2026-11-26 13:00 UTC

BACKUPS
last backup      2026-11-26 02:00 UTC, SCHEDULED COMPLETED, {BACKUP_ID}
last good        2026-11-26 02:00 UTC, 11 hours ago
of every entity  2026-11-26 02:00 UTC, 11 hours ago
last proof       2026-11-24 13:00 UTC, 2 days ago
newest proven    2026-11-23 02:00 UTC, 3 days ago
next scheduled   2026-11-27 02:00 UTC, in 13 hours
available        12 backups

SCHEDULES
schedules  2, 0 of them paused

EXPORTS
export\twhat\tstatus\trecords\tsize\tcreated
{EXPORT_ID}\tall\tCOMPLETED\t1,500\t2.5 MB\t2026-11-26 02:00 UTC

IMPORTS
import\tentity\tmode\tstatus\trecords\tcreated
{IMPORT_ID}\tusers\tUPSERT\tCOMPLETED\t150, 2 refused\t2026-11-26 02:00 UTC

JOBS
job\tkind\tstate\tstage\tresource\tcreated
{JOB_ID}\tEXPORT\tRUNNING\tcopy\texports/{EXPORT_ID}\t2026-11-26 13:00 UTC
and 2 more: dataops jobs list

NO BACKUP COVERS
  public.v: it is a view
"""


def test_a_healthy_installation_fits_on_a_screen_without_a_mark(world: World, capsys):
    world.overview = HEALTHY
    assert main(["overview"]) == 0

    assert capsys.readouterr().out == SHOWN


def test_what_needs_somebody_is_marked(world: World, capsys):
    failed = common_pb2.OperationError(reason="PLATFORM_UNREACHABLE", message="away")
    world.overview = overview_pb2.GetOverviewResponse(
        as_of=NOW,
        last_backup=backups_pb2.Backup(
            backup_id=BACKUP_ID,
            trigger_type=backups_pb2.TRIGGER_TYPE_SCHEDULED,
            status=backups_pb2.BACKUP_STATUS_FAILED,
            created_at=NIGHT,
            error=failed,
        ),
        damaged_backups=1,
        unprotected_entities=[f"e{number}" for number in range(7)],
        unprotected_entity_count=300,
        schedules=overview_pb2.ScheduleSummary(
            schedules=3,
            paused=1,
            overdue=1,
            missed_runs=4,
            skipped_runs=1,
            failed_runs=2,
            concerns=[
                overview_pb2.ScheduleConcerns(
                    schedule_id="s-1",
                    name="nightly\x1b[31m",
                    concerns=[overview_pb2.SCHEDULE_CONCERN_OVERDUE, overview_pb2.SCHEDULE_CONCERN_FAILING],
                    next_run_at=NIGHT,
                    failed_runs=2,
                ),
                overview_pb2.ScheduleConcerns(
                    schedule_id="s-2", name="weekly", concerns=[overview_pb2.SCHEDULE_CONCERN_PAUSED]
                ),
            ],
        ),
        notices=[
            common_pb2.Notice(code="PLATFORM_UNREACHABLE", message="away", severity=common_pb2.NOTICE_SEVERITY_WARNING)
        ],
        withheld=["exports", "catalog"],
    )
    assert main(["overview"]) == 0
    shown = capsys.readouterr().out

    marked = [" ".join(line.split()) for line in shown.splitlines() if "!" in line]
    assert marked == [
        "! PLATFORM_UNREACHABLE: away",
        f"last backup ! 2026-11-26 02:00 UTC, SCHEDULED FAILED, {BACKUP_ID}, PLATFORM_UNREACHABLE: away",
        "last good ! there is none",
        "last proof ! none was ever proven restorable",
        "next scheduled ! none is scheduled",
        "damaged ! 1 backup",
        "in no good backup ! e0, e1, e2, e3, e4 and 295 more",
        "overdue ! 1",
        "failed ! 2 times since the last good backup",
        "! nightly [31m: OVERDUE, FAILING, failed 2 times, due 11 hours ago (s-1)",
        "! weekly: PAUSED (s-2)",
    ]
    assert "\x1b" not in shown
    assert "EXPORTS\nnone of your roles permits exports.read" in shown
    assert "NO BACKUP COVERS\nnone of your roles permits catalog.read" in shown
    assert "IMPORTS\nnone" in shown


def test_that_none_is_scheduled_is_not_said_to_who_may_not_see_schedules(world: World, capsys):
    for withheld, said in (([], True), (["schedules"], False)):
        world.overview = overview_pb2.GetOverviewResponse(as_of=NOW, withheld=withheld)
        assert main(["overview"]) == 0
        assert ("none is scheduled" in capsys.readouterr().out) == said


def test_programs_get_it_whole_and_the_number_of_recent_ones_is_passed_on(world: World, capsys):
    world.overview = overview_pb2.GetOverviewResponse(as_of=NOW, available_backups=2)
    assert main(["overview", "--recent", "7", "-o", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)

    assert (shown["available_backups"], shown["last_backup"], shown["as_of"]) == (2, None, "2026-11-26T13:00:00Z")
    assert world.lists(overview_pb2.GetOverviewRequest) == [overview_pb2.GetOverviewRequest(recent=7)]
    assert main(["overview", "--recent", "51"]) == 2


@pytest.mark.parametrize(
    ("moment", "told"),
    [
        ("2026-11-26T13:00:00Z", "now"),
        ("2026-11-26T12:59:59Z", "1 second ago"),
        ("2026-11-26T12:58:01Z", "119 seconds ago"),
        ("2026-11-26T12:58:00Z", "2 minutes ago"),
        ("2026-11-25T13:00:00Z", "24 hours ago"),
        ("2026-11-28T13:00:00Z", "in 2 days"),
    ],
)
def test_ages_are_told_as_people_do(moment: str, told: str):
    assert ago(NOW, at(moment)) == told
